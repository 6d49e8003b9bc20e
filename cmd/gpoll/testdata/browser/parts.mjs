// The parts of the page: its publisher, the faults, the charts, who is present, the doctor, the token.

import assert from 'node:assert/strict';
import { calm as server, calmContext as context, calmPage as page, message, open, sent, start, step } from './harness.mjs';
import { proxy } from './proxy.mjs';

const by = (transport) => page.locator(`#lane-${transport}[data-use=true]`).waitFor();
const figure = async (name) => Number(await page.locator(`#tally-${name}`).textContent());

/** Waits until so many more of the page's messages have come. */
async function come(n) {
	const all = await figure('received') + n;
	await page.waitForFunction((all) => Number(document.getElementById('tally-received').textContent) >= all, all);
}

/** Every message so far has come, once, or was told as missing. */
async function nothingLost() {
	const account = Object.fromEntries(await Promise.all(['silent', 'twice', 'told'].map(async (name) => [name, await figure(name)])));
	assert.deepEqual(account, { silent: 0, twice: 0, told: 0 });
}

export async function parts() {
	await step('five messages a second come, each by the WebSocket', async () => {
		await open('', server.url, page);
		await page.getByRole('button', { name: 'Send 5 messages a second' }).click();
		await come(3);
		await by('websocket');
		assert.equal(await page.locator('#verdict').innerText(), 'Nothing lost, nothing twice.');
		assert.ok(await page.locator('#lane-websocket-count').innerText().then(Number) >= 3);
	});
	await step('without a WebSocket the session goes on by SSE, and with one by that again', async () => {
		await page.getByRole('button', { name: 'Cut the WebSocket' }).click();
		await by('sse');
		assert.match(await page.locator('#switches').innerText(), /WebSocket → SSE: WebSocket is refused on the way\. ws_refused/);
		assert.equal(await page.locator('#cut').getAttribute('aria-pressed'), 'true');
		await come(3);
		await page.getByRole('button', { name: 'Cut the WebSocket' }).click();
		await by('websocket');
		assert.match(await page.locator('#switches li').first().innerText(), /SSE → WebSocket: it works again\./);
		await come(3);
		await nothingLost();
	});
	await step('behind a proxy that holds the stream back it goes on by long-poll', async () => {
		await page.getByRole('button', { name: 'Buffer the stream' }).click();
		await by('long-poll');
		assert.match(await page.locator('#switches li').first().innerText(), /holds the stream’s bytes back.*sse_buffered/);
		await come(3);
		await nothingLost();
	});
	await step('a response that is dropped comes again, by each transport', async () => {
		const drop = async () => {
			await page.getByRole('button', { name: 'Drop a response' }).click();
			await page.waitForFunction(() => document.getElementById('faults-say').textContent.startsWith('A response was thrown away'));
			await come(2);
			await nothingLost();
		};
		await drop();
		await page.getByRole('button', { name: 'Buffer the stream' }).click();
		await by('websocket');
		await drop();
		await page.getByRole('button', { name: 'Cut the WebSocket' }).click();
		await by('sse');
		await drop();
	});
	await step('a server whose log begins anew tells a gap', async () => {
		await page.getByRole('button', { name: 'Restart the server’s log' }).click();
		await page.locator('#log .gap[data-reason=epoch]').waitFor();
		await come(3);
		assert.match(await page.locator('#switches .gap').innerText(), /the server’s log has begun anew/);
		assert.equal(await page.locator('#log .gap').count(), 1);
		assert.deepEqual([await figure('silent'), await figure('twice')], [0, 0]);
		await page.getByRole('button', { name: 'Stop sending' }).click();
		await page.waitForFunction(() => document.getElementById('tally-way').textContent === '0');
		assert.equal(await figure('sent'), await figure('received') + await figure('told'));
	});
	await step('a reload begins on a whole network', async () => {
		await page.reload();
		await by('websocket');
		assert.ok(await page.locator('#fallback').isHidden());
	});
	await step('the charts draw what the server says', async () => {
		const drawn = () => [...document.querySelectorAll('.chart')].every((chart) => {
			const canvas = chart.querySelector('canvas');
			const inks = new Set([...chart.querySelectorAll('.legend > div')].map((line) => getComputedStyle(line, '::before').backgroundColor));
			const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
			const of = (i) => `rgb(${pixels[i]}, ${pixels[i + 1]}, ${pixels[i + 2]})`;
			for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3] === 255 && inks.has(of(i))) return true; // of a line
			return false;
		});
		await page.locator('#demo').click(); // the page's own messages are the third chart
		await page.waitForFunction(drawn);
		await page.locator('#demo').click();
		assert.equal(await page.locator('.chart').count(), 6);
		const value = (chart, line) => page.locator('.chart').nth(chart).locator('dd').nth(line);
		const settled = (chart, line, text) => value(chart, line).filter({ hasText: text }).waitFor();
		await settled(0, 0, /^1$/); // this page, by WebSocket
		await settled(4, 2, /^1$/); // the gap of reason epoch
		await settled(5, 0, /^[1-9]/); // it has told the server why it came by SSE
	});
	await step('two pages are present, and then one', async () => {
		const there = (n, of = page) => of.locator(`.present[data-count="${n}"]`).waitFor();
		await there(1);
		const other = await context.newPage();
		await open('', server.url, other);
		await there(2);
		await there(2, other); // or it would be closed while it loads what tells it
		assert.equal(await page.locator('.member').count(), 2);
		await other.close();
		await there(1);
	});
	await step('the doctor finds all three transports', async () => {
		await page.getByRole('button', { name: 'Examine my connection' }).click();
		await page.getByText('All three transports reach the server.').waitFor();
		assert.equal(await page.locator('.findings > li[data-works=true]').count(), 3);
	});
	await step('the doctor names what a proxy gets wrong, and the cure', async () => {
		const front = await proxy(new URL(server.url).host, { webSocket: false, events: 'hold' });
		await page.goto(front.url);
		await page.getByRole('button', { name: 'Examine my connection' }).click();
		await page.getByText('1 of 3 transports reach the server').waitFor();
		const finding = (transport) => page.locator(`.findings > li[data-transport=${transport}]`).innerText();
		assert.match(await finding('websocket'), /ws_refused[^]*proxy_set_header Upgrade/);
		assert.match(await finding('sse'), /sse_buffered[^]*proxy_buffering off/);
		assert.match(await finding('long-poll'), /works/);
		front.close();
	});
	await step('the doctor names a proxy that changes the Host', async () => {
		const { host } = new URL(server.url);
		const front = await proxy(host, { host });
		await page.goto(front.url);
		await page.getByRole('button', { name: 'Examine my connection' }).click();
		await page.getByText('2 of 3 transports reach the server').waitFor();
		assert.match(await page.locator('.findings > li[data-works=false]').innerText(), /WebSocket[^]*is not Host[^]*proxy_set_header Host \$http_host/);
		front.close();
	});
	await step('with a publish token the page sends, restarts and shows figures for those who have it', async () => {
		const guarded = await start('127.0.0.1:0', '-publish-token', 's3cret');
		const other = await context.newPage();
		await open('', guarded.url, other);
		await other.getByText('The server shows its figures to those who have the publish token.').waitFor();
		const say = async (token, text) => {
			await other.getByLabel('Publish token').fill(token);
			await other.getByLabel('Message', { exact: true }).fill(text);
			await other.keyboard.press('Enter');
		};
		await say('wrong', 'without');
		await sent('The publish token is wrong: the message was not sent.', other);
		await other.getByRole('button', { name: 'Restart the server’s log' }).click();
		await other.getByText('The publish token is wrong: the log goes on.').waitFor();
		await say('s3cret', 'with the token');
		await message('with the token', other).waitFor();
		await other.locator('.chart dd', { hasText: /^1$/ }).first().waitFor();
		assert.equal(await message('without', other).count(), 0);
		await other.close();
		guarded.child.kill('SIGKILL');
	});
}
