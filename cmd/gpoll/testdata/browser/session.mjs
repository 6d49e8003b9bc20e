// The feed, and the session through all that may happen to its connections.

import assert from 'node:assert/strict';
import { TRANSPORTS, addr, attached, context, message, open, over, page, post, sent, serve, server, state, step } from './harness.mjs';
import { proxy } from './proxy.mjs';

/** Returns a list, in the page, of all that its line about its state says from now on, for however short a time. */
function details() {
	return page.evaluateHandle(() => {
		const line = document.getElementById('state-detail'), said = [];
		new MutationObserver(() => said.push(line.textContent)).observe(line, { childList: true, characterData: true, subtree: true });
		return said;
	});
}

export async function session() {
	for (const [transport, [, label]] of Object.entries(TRANSPORTS)) {
		await step(`${transport}: a message that was sent by POST arrives`, async () => {
			await open(`transport=${transport}`);
			await post(`by POST, to ${transport}: grüße 日本語 🙂`);
			await message(`by POST, to ${transport}: grüße 日本語 🙂`).waitFor();
			assert.equal(await page.locator('#log .by').last().textContent(), label);
		});
		await step(`${transport}: a message that the page sends comes back`, async () => {
			await page.getByLabel('Message', { exact: true }).fill(`from the page, over ${transport}`);
			await page.getByRole('button', { name: 'Send', exact: true }).click();
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
			await post('sport', 'sport');
			await post(`after the sport, ${transport}`);
			await message(`after the sport, ${transport}`).waitFor();
			assert.equal(await message('sport').count(), 0);
		});
		await step(`${transport}: kill -9 and a new start are seen, with one gap notice`, async () => {
			await open(`transport=${transport}`);
			await post(`before the kill, ${transport}`);
			await message(`before the kill, ${transport}`).waitFor();
			server.child.kill('SIGKILL');
			await state('waiting');
			await serve();
			await state('connected');
			await page.locator('#log .gap[data-reason=epoch]').waitFor();
			await post(`after the kill, ${transport}`);
			await message(`after the kill, ${transport}`).waitFor();
			assert.equal(await page.locator('#log .gap').count(), 1);
			assert.deepEqual((await page.locator('#log .data').allTextContents()).slice(-3),
				[`before the kill, ${transport}`, await page.locator('#log .gap .data').textContent(), `after the kill, ${transport}`]);
		});
	}

	await step('changes of transport while messages flow lose and repeat nothing', async () => {
		await open('transport=websocket');
		const total = 360;
		const order = ['sse', 'long-poll', 'websocket', 'long-poll', 'sse', 'websocket', 'sse', 'websocket', 'long-poll'];
		for (let n = 0; n < total; n++) {
			await post(`flow ${n}`);
			if (n % 40 === 20) await page.locator('.transports label', { hasText: TRANSPORTS[order[Math.floor(n / 40)]][0] }).click();
		}
		await message(`flow ${total - 1}`).waitFor();
		const got = (await page.locator('#log .message .data').allTextContents()).filter((t) => t.startsWith('flow '));
		assert.deepEqual(got, Array.from({ length: total }, (_, n) => `flow ${n}`));
		assert.equal(await page.locator('#log .gap').count(), 0);
		const labels = new Set(await page.locator('#log .by').allTextContents());
		assert.deepEqual([...labels].sort(), ['poll', 'sse', 'ws']);
	});

	await step('a page that is opened later shows the newest messages', async () => {
		await open('transport=sse');
		await message('flow 359').waitFor();
		assert.equal(await page.locator('#log .message').count(), 50);
		assert.equal(await message('flow 310').count(), 1);
	});

	await step('while it is disconnected nothing is lost', async () => {
		await page.getByRole('button', { name: 'Disconnect' }).click();
		await state('closed');
		await post('meanwhile');
		await page.getByRole('button', { name: 'Connect', exact: true }).click();
		await message('meanwhile').waitFor();
		assert.equal(await page.locator('#log .gap').count(), 0);
	});

	await step('a message is text, whatever it contains', async () => {
		const evil = '<img src=x onerror="document.title=1"><script>document.title=2</script>';
		await post(evil);
		await message(evil).waitFor();
		assert.equal(await page.locator('#log img, #log script').count(), 0);
		assert.equal(await page.title(), 'gpoll');
	});

	await step('the list is capped, and a long message is folded', async () => {
		await post('x'.repeat(20_000));
		await page.getByRole('button', { name: /^Show all 20.000 characters$/ }).click();
		await message('x'.repeat(20_000)).waitFor();
		for (let n = 0; n < 520; n++) await post(`many ${n}`);
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
		await state('connected', other);
		await post('to both');
		await message('to both', other).waitFor();
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
		await over('over SSE');
		assert.equal(await page.locator('#fallback').innerText(), 'SSE, because WebSocket is refused on the way.');
		await post('past a proxy without WebSocket');
		await message('past a proxy without WebSocket').waitFor();
		assert.equal(await page.locator('#log .by').last().textContent(), 'sse');
		front.close();
	});

	await step('a page whose events are held for ever goes on by long-poll', async () => {
		const front = await proxy(addr, { webSocket: false, events: 'hold' });
		await page.goto(front.url);
		await over('by long-poll');
		assert.equal(await page.locator('#fallback').innerText(),
			'Long-poll, because WebSocket is refused on the way, and something on the way holds the stream’s bytes back.');
		await post('past a proxy that holds events');
		await message('past a proxy that holds events').waitFor();
		assert.equal(await page.locator('#log .by').last().textContent(), 'poll');
		front.close();
	});

	await step('a server that is away is no reason to change the transport', async () => {
		const front = await proxy(addr);
		await page.goto(front.url);
		await over('over WebSocket');
		const refused = page.waitForResponse((r) => r.status() === 502);
		front.how.down = true;
		front.cut();
		await refused;
		await state('waiting');
		front.how.down = false;
		await over('over WebSocket');
		assert.ok(await page.locator('#fallback').isHidden());
		front.close();
	});

	await step('the page works below a prefix that is taken away', async () => {
		const front = await proxy(addr, { prefix: '/some/where' });
		for (const [transport, [, label]] of Object.entries(TRANSPORTS)) {
			await open(`transport=${transport}`, front.url);
			await page.getByLabel('Message', { exact: true }).fill(`below a prefix, ${transport}`);
			await page.getByRole('button', { name: 'Send', exact: true }).click();
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
			await state('connected');
			await page.getByRole('button', { name: 'Clear' }).click();
			const first = await post('one of the sport', 'sport');
			await post('for the news', 'news');
			await message('for the news').waitFor();
			assert.deepEqual(await page.locator('#log .skipped').allTextContents(), [`#${first} went to a topic you do not receive.`]);
			assert.equal(await page.locator('#log .body', { hasText: 'for the news' }).innerText().then((t) => t.replace(/\s+/g, ' ')), 'news for the news');
			await post('two of the sport', 'sport');
			await post('three of the sport', 'sport');
			await post('for everybody');
			await message('for everybody').waitFor();
			assert.equal(await page.locator('#log .skipped').last().textContent(), `#${first + 2} to #${first + 3} went to topics you do not receive.`);
			assert.equal(await page.locator('#log .body', { hasText: 'for everybody' }).locator('.topic').count(), 0);
			assert.equal(await page.locator('#log .gap').count(), 0);
		});
	}

	await step('a server that falls silent is noticed, a quiet one is not', async () => {
		await serve('-heartbeat', '1s');
		await open('transport=websocket');
		const quiet = await page.evaluate(() => new Promise((resolve) => {
			const seen = new MutationObserver(() => resolve(document.getElementById('state').dataset.state));
			seen.observe(document.getElementById('state'), { attributes: true });
			setTimeout(resolve, 2_600, 'nothing happened'); // longer than the watchdog waits
		}));
		assert.equal(quiet, 'nothing happened');
		server.child.kill('SIGSTOP');
		await state('waiting');
		server.child.kill('SIGCONT');
		await state('connected');
		await post('after the silence');
		await message('after the silence').waitFor();
		assert.equal(await page.locator('#log .gap').count(), 0);
	});

	for (const transport of Object.keys(TRANSPORTS)) {
		await step(`${transport}: a drain is told as such`, async () => {
			await open(`transport=${transport}`);
			await attached(transport); // a poll that is between two answers is told nothing
			const said = await details();
			server.child.kill('SIGTERM');
			await state('waiting');
			// The page comes back after a second or two, and then says that it cannot reach the server.
			await page.waitForFunction((said) => said.some((line) => /shut|down/i.test(line)), said);
			const [code] = await server.ended;
			assert.equal(code, 0);
			await serve();
			await state('connected');
		});
	}
}
