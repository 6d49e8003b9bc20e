// Drives the page of gpoll in Chromium, against a server that it starts, kills and starts again.
//
//   node browser.mjs <gpoll binary> <chromium binary> <address> <README's program> <its address>
//
// It prints a line for each step. The first failure ends it with code 1 and the state of the page.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';
import { proxy } from './proxy.mjs';

const [gpoll, executablePath, addr, readme, readmeAddr] = process.argv.slice(2);
const DEADLINE = 15_000; // ms for anything to happen
const TRANSPORTS = { websocket: ['WebSocket', 'ws'], sse: ['SSE', 'sse'], 'long-poll': ['Long-poll', 'poll'] };

/** Starts gpoll and returns it, once it listens. */
async function serve(...flags) {
	const child = spawn(gpoll, ['-addr', addr, '-drain', '5s', '-shutdown-spread', '1s', '-log-level', 'warn', ...flags], { stdio: ['ignore', 'pipe', 'inherit'] });
	const ended = once(child, 'exit');
	for await (const line of createInterface({ input: child.stdout })) {
		const url = /^\s+(http:\/\/\S+)\/$/.exec(line)?.[1];
		if (url) return { child, url, ended };
	}
	throw new Error('gpoll ended before it listened');
}

async function post(server, text, topic = '') {
	const response = await fetch(`${server.url}/send${topic && `?topic=${topic}`}`, { method: 'POST', body: text });
	const body = await response.text();
	assert.equal(response.status, 200, body);
	return Number(JSON.parse(body).position.split('-')[1]);
}

const profile = await mkdtemp(join(tmpdir(), 'gpoll-browser-'));
let server = await serve();
const context = await chromium.launchPersistentContext(profile, {
	executablePath, headless: true, viewport: { width: 1280, height: 800 }, timeout: 60_000,
	args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
context.setDefaultTimeout(DEADLINE);
const page = await context.newPage();

const complaints = []; // of the page or the browser about it, such as a violation of the Content-Security-Policy
page.on('pageerror', (e) => complaints.push(e.stack ?? e.message));
page.on('console', (m) => {
	// Chromium reports every failed request; the steps below make them fail.
	if (m.type() === 'error' && !/Failed to load resource|WebSocket connection to|net::ERR_/.test(m.text())) complaints.push(m.text());
});

const state = (name) => page.locator(`#state[data-state=${name}]`).waitFor();
const message = (text) => page.locator('#log .message', { has: page.getByText(text, { exact: true }) });
const open = async (transport, url = server.url) => {
	await page.goto(`${url}/?transport=${transport}`);
	await state('open');
};

/** Waits until the server says that the page is attached. */
async function attached(transport) {
	const deadline = performance.now() + DEADLINE;
	for (;;) {
		const figures = await (await fetch(`${server.url}/stats`)).json();
		if (figures.attached[transport] > 0) return;
		assert.ok(performance.now() < deadline, `attached: ${JSON.stringify(figures.attached)}`);
	}
}

/** Waits until the page says what became of a message that it sent, which may be after the message has come back. */
async function sent(text) {
	await page.locator('#send-result').filter({ hasText: text }).waitFor();
}

/** Returns a list, in the page, of all that its line about its state says from now on, for however short a time. */
function details() {
	return page.evaluateHandle(() => {
		const line = document.getElementById('state-detail'), said = [];
		new MutationObserver(() => said.push(line.textContent)).observe(line, { childList: true, characterData: true, subtree: true });
		return said;
	});
}

async function step(name, run) {
	const started = performance.now();
	try {
		await run();
		assert.deepEqual(complaints, []);
		console.log(`ok    ${name} (${Math.round(performance.now() - started)} ms)`);
	} catch (e) {
		console.log(`FAIL  ${name}: ${e.stack ?? e}`);
		console.log(await page.locator('body').innerText({ timeout: 1_000 }).then((t) => t.slice(-3_000), String));
		throw e;
	}
}

async function steps() {
	for (const [transport, [, label]] of Object.entries(TRANSPORTS)) {
		await step(`${transport}: a message that was sent by POST arrives`, async () => {
			await open(transport);
			await post(server, `by POST, to ${transport}: grüße 日本語 🙂`);
			await message(`by POST, to ${transport}: grüße 日本語 🙂`).waitFor();
			assert.equal(await page.locator('#log .by').last().textContent(), label);
		});
		await step(`${transport}: a message that the page sends comes back`, async () => {
			await page.getByLabel('Message', { exact: true }).fill(`from the page, over ${transport}`);
			await page.getByRole('button', { name: 'Send' }).click();
			await message(`from the page, over ${transport}`).waitFor();
			await sent(/^Sent as #\d+\.$/);
		});
		await step(`${transport}: topics reach their subscribers only`, async () => {
			await page.getByLabel('Topics').fill('news');
			await page.getByRole('button', { name: 'Apply' }).click();
			await page.getByLabel('Message', { exact: true }).fill(`news for ${transport}`);
			await page.getByLabel('Topic (optional)').fill('news');
			await page.keyboard.press('Enter');
			await message(`news for ${transport}`).waitFor();
			await sent(/^Sent as #\d+ to news\.$/);
			await post(server, 'sport', 'sport');
			await post(server, `after the sport, ${transport}`);
			await message(`after the sport, ${transport}`).waitFor();
			assert.equal(await message('sport').count(), 0);
		});
		await step(`${transport}: kill -9 and a new start are seen, with one gap notice`, async () => {
			await open(transport);
			await post(server, `before the kill, ${transport}`);
			await message(`before the kill, ${transport}`).waitFor();
			server.child.kill('SIGKILL');
			await state('reconnecting');
			await server.ended;
			server = await serve();
			await state('open');
			await page.locator('#log .gap[data-reason=epoch]').waitFor();
			await post(server, `after the kill, ${transport}`);
			await message(`after the kill, ${transport}`).waitFor();
			assert.equal(await page.locator('#log .gap').count(), 1);
			assert.deepEqual((await page.locator('#log .data').allTextContents()).slice(-3),
				[`before the kill, ${transport}`, await page.locator('#log .gap .data').textContent(), `after the kill, ${transport}`]);
		});
	}

	await step('changes of transport while messages flow lose and repeat nothing', async () => {
		await open('websocket');
		const total = 360;
		const order = ['sse', 'long-poll', 'websocket', 'long-poll', 'sse', 'websocket', 'sse', 'websocket', 'long-poll'];
		for (let n = 0; n < total; n++) {
			await post(server, `flow ${n}`);
			if (n % 40 === 20) await page.getByText(TRANSPORTS[order[Math.floor(n / 40)]][0], { exact: true }).click();
		}
		await message(`flow ${total - 1}`).waitFor();
		const got = (await page.locator('#log .message .data').allTextContents()).filter((t) => t.startsWith('flow '));
		assert.deepEqual(got, Array.from({ length: total }, (_, n) => `flow ${n}`));
		assert.equal(await page.locator('#log .gap').count(), 0);
		const labels = new Set(await page.locator('#log .by').allTextContents());
		assert.deepEqual([...labels].sort(), ['poll', 'sse', 'ws']);
	});

	await step('a page that is opened later shows the newest messages', async () => {
		await open('sse');
		await message('flow 359').waitFor();
		assert.equal(await page.locator('#log .message').count(), 50);
		assert.equal(await message('flow 310').count(), 1);
	});

	await step('while it is disconnected nothing is lost', async () => {
		await page.getByRole('button', { name: 'Disconnect' }).click();
		await state('ended');
		await post(server, 'meanwhile');
		await page.getByRole('button', { name: 'Connect', exact: true }).click();
		await message('meanwhile').waitFor();
		assert.equal(await page.locator('#log .gap').count(), 0);
	});

	await step('a message is text, whatever it contains', async () => {
		const evil = '<img src=x onerror="document.title=1"><script>document.title=2</script>';
		await post(server, evil);
		await message(evil).waitFor();
		assert.equal(await page.locator('#log img, #log script').count(), 0);
		assert.equal(await page.title(), 'gpoll');
	});

	await step('the list is capped, and a long message is folded', async () => {
		await post(server, 'x'.repeat(20_000));
		await page.getByRole('button', { name: /^Show all 20.000 characters$/ }).click();
		await message('x'.repeat(20_000)).waitFor();
		for (let n = 0; n < 520; n++) await post(server, `many ${n}`);
		await message('many 519').waitFor();
		assert.equal(await page.locator('#log li').count(), 500);
	});

	await step('a wrong topic is refused beside its field', async () => {
		await page.getByLabel('Topics').fill('not*a*topic');
		await page.getByRole('button', { name: 'Apply' }).click();
		assert.match(await page.getByLabel('Topics').evaluate((e) => e.validationMessage), /not\*a\*topic/);
	});

	await step('a second page of the same browser has a session of its own', async () => {
		const other = await context.newPage();
		await other.goto(server.url);
		await other.locator('#state[data-state=open]').waitFor();
		await post(server, 'to both');
		await other.locator('#log .data', { hasText: 'to both' }).waitFor();
		await message('to both').waitFor();
		await other.close();
	});

	await step('every control has a name', async () => {
		const nameless = await page.locator('input, textarea, button, [role=region]').evaluateAll((all) => all
			.filter((e) => !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())).map((e) => e.outerHTML));
		assert.deepEqual(nameless, []);
	});

	await step('a page that WebSocket does not reach goes on by SSE and says why', async () => {
		const front = await proxy(addr, { webSocket: false });
		await page.goto(front.url);
		await page.locator('#state-detail', { hasText: 'over SSE' }).waitFor();
		await state('open');
		assert.match(await page.locator('#fallback').innerText(), /^WebSocket failed twice, so the page tries SSE\. .*refused/);
		assert.ok(await page.getByRole('radio', { name: 'SSE' }).isChecked());
		await post(server, 'past a proxy without WebSocket');
		await message('past a proxy without WebSocket').waitFor();
		assert.equal(await page.locator('#log .by').last().textContent(), 'sse');
		front.close();
	});

	await step('a page whose events are held for ever goes on by long-poll', async () => {
		const front = await proxy(addr, { webSocket: false, events: 'hold' });
		await page.goto(front.url);
		await page.locator('#state-detail', { hasText: 'by long-poll' }).waitFor({ timeout: 20_000 });
		await state('open');
		assert.match(await page.locator('#fallback').innerText(), /^SSE failed twice, so the page tries Long-poll\. The event stream does not start\./);
		await post(server, 'past a proxy that holds events');
		await message('past a proxy that holds events').waitFor();
		assert.equal(await page.locator('#log .by').last().textContent(), 'poll');
		await page.getByText('WebSocket', { exact: true }).click();
		assert.ok(await page.locator('#fallback').isHidden());
		front.close();
	});

	await step('a server that is away is no reason to change the transport', async () => {
		const front = await proxy(addr);
		await page.goto(front.url);
		await state('open');
		front.how.down = true;
		front.cut();
		await page.waitForFunction(() => performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/poll')).length >= 3);
		front.how.down = false;
		await page.locator('#state-detail', { hasText: 'over WebSocket' }).waitFor();
		assert.ok(await page.locator('#fallback').isHidden());
		front.close();
	});

	await step('the page works below a prefix that is taken away', async () => {
		const front = await proxy(addr, { prefix: '/some/where' });
		for (const [transport, [, label]] of Object.entries(TRANSPORTS)) {
			await open(transport, front.url);
			await page.getByLabel('Message', { exact: true }).fill(`below a prefix, ${transport}`);
			await page.getByRole('button', { name: 'Send' }).click();
			await message(`below a prefix, ${transport}`).waitFor();
			assert.equal(await page.locator('#log .by').last().textContent(), label);
			assert.ok(await page.locator('#fallback').isHidden());
		}
		assert.ok((await page.locator('#curl-send').textContent()).endsWith(`'${front.url}/send'`));
		assert.ok((await page.locator('#curl-read').textContent()).includes(`'${front.url}/poll/events`));
		assert.equal(await page.locator('.top img').evaluate((e) => e.naturalWidth > 0), true);
		front.close();
	});

	for (const transport of Object.keys(TRANSPORTS)) {
		await step(`${transport}: a skipped number is explained, and a topic stands beside its message`, async () => {
			await page.goto(`${server.url}/?transport=${transport}&topics=news`);
			await state('open');
			await page.getByRole('button', { name: 'Clear' }).click();
			const first = await post(server, 'one of the sport', 'sport');
			await post(server, 'for the news', 'news');
			await message('for the news').waitFor();
			assert.deepEqual(await page.locator('#log .skipped').allTextContents(), [`#${first} went to a topic you do not receive.`]);
			assert.equal(await page.locator('#log .body', { hasText: 'for the news' }).innerText().then((t) => t.replace(/\s+/g, ' ')), 'news for the news');
			await post(server, 'two of the sport', 'sport');
			await post(server, 'three of the sport', 'sport');
			await post(server, 'for everybody');
			await message('for everybody').waitFor();
			assert.equal(await page.locator('#log .skipped').last().textContent(), `#${first + 2} to #${first + 3} went to topics you do not receive.`);
			assert.equal(await page.locator('#log .body', { hasText: 'for everybody' }).locator('.topic').count(), 0);
			assert.equal(await page.locator('#log .gap').count(), 0);
		});
	}

	await step("the README's page survives a proxy's 502, below a prefix", async () => {
		const program = spawn(readme, { cwd: dirname(readme), stdio: 'inherit' });
		const front = await proxy(readmeAddr, { prefix: '/chat' });
		try {
			const other = await context.newPage();
			for (const deadline = performance.now() + DEADLINE; !await fetch(`http://${readmeAddr}/`).catch(() => null);) assert.ok(performance.now() < deadline);
			await other.goto(`${front.url}/`);
			const say = (text) => fetch(`http://${readmeAddr}/send`, { method: 'POST', body: new URLSearchParams({ text }) });
			const shows = (text) => other.waitForFunction((text) => document.getElementById('out').textContent.includes(text), text);
			await other.getByRole('textbox').fill('from the form');
			await other.keyboard.press('Enter');
			await shows('from the form');
			const refused = other.waitForResponse((r) => r.status() === 502);
			front.how.down = true;
			front.cut();
			await refused; // which ends the EventSource
			await say('during the 502');
			front.how.down = false;
			await shows('during the 502');
			await say('after the 502');
			await shows('after the 502');
			assert.equal(await other.locator('#out').textContent(), 'from the form\nduring the 502\nafter the 502\n');
			await other.close();
		} finally {
			program.kill('SIGKILL');
			front.close();
		}
	});

	for (const transport of ['websocket', 'sse']) {
		await step(`${transport}: a server that falls silent is noticed, a quiet one is not`, async () => {
			server.child.kill('SIGKILL');
			await server.ended;
			server = await serve('-heartbeat', '1s');
			await open(transport);
			const quiet = await page.evaluate(() => new Promise((resolve) => {
				const seen = new MutationObserver(() => resolve(document.getElementById('state').dataset.state));
				seen.observe(document.getElementById('state'), { attributes: true });
				setTimeout(resolve, 2_600, 'nothing happened'); // longer than the watchdog waits
			}));
			assert.equal(quiet, 'nothing happened');
			server.child.kill('SIGSTOP');
			await state('reconnecting');
			server.child.kill('SIGCONT');
			await state('open');
			await post(server, `after the silence, ${transport}`);
			await message(`after the silence, ${transport}`).waitFor();
			assert.equal(await page.locator('#log .gap').count(), 0);
		});
	}

	for (const transport of Object.keys(TRANSPORTS)) {
		await step(`${transport}: a drain is told as such`, async () => {
			await open(transport);
			await attached(transport); // a poll that is between two answers is told nothing
			const said = await details();
			server.child.kill('SIGTERM');
			await state('reconnecting');
			// The page comes back after a second or two, and then says that it cannot reach the server.
			await page.waitForFunction((said) => said.some((line) => /shut|down/i.test(line)), said);
			const [code] = await server.ended;
			assert.equal(code, 0);
			server = await serve();
			await state('open');
		});
	}
}

let failed = false;
try {
	await steps();
} catch {
	failed = true;
} finally {
	await context.close();
	server.child.kill('SIGKILL');
	await rm(profile, { recursive: true, force: true, maxRetries: 5 });
}
process.exit(failed ? 1 : 0);
