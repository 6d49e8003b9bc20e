// Opens pages in Chromium and listens on each by long-poll, SSE and WebSocket, at addresses relative to the page's own.
//
//   node listen.mjs <package.json beside playwright-core> <chromium> '{"<proxy>": ["<page>", …], …}'
//
// It prints a JSON list of {"Proxy", "Index", "Transport", "Error"}. The proxies are tried side by side.

import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const [modules, browser, task] = process.argv.slice(2);
const { chromium } = createRequire(modules)('playwright-core');
const profile = await mkdtemp(join(tmpdir(), 'gpoll-proxies-'));
const context = await chromium.launchPersistentContext(profile, {
	executablePath: browser, headless: true, ignoreHTTPSErrors: true, timeout: 60_000,
	args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});

/** Runs in the page: listens by a transport until two messages have come, the second sent after the first had come. */
async function listen(transport) {
	const topic = crypto.getRandomValues(new Uint32Array(2)).join('-');
	const send = async (text) => {
		const answer = await fetch(`send?topic=${topic}&text=${text}`, { method: 'POST' });
		if (!answer.ok) throw new Error(`send: ${answer.status}`);
	};
	/** Returns what a listener calls at the start, with a message and with an error, and a promise of the end. */
	const exchange = () => {
		const left = ['one', 'two'];
		const { promise, resolve, reject } = Promise.withResolvers();
		return {
			promise, reject,
			begin: () => send(left[0]).catch(reject),
			take(text) {
				if (text !== left.shift()) reject(new Error(`got ${text}`));
				else if (left.length === 0) resolve();
				else send(left[0]).catch(reject);
			},
		};
	};
	const listeners = {
		async 'long-poll'() {
			const poll = async (query, id) => {
				const answer = await fetch(`poll?format=json&topic=${topic}${query}`, { headers: { 'Gpoll-Client-Id': id } });
				if (!answer.ok) throw new Error(`poll: ${answer.status} ${await answer.text()}`);
				return answer.json();
			};
			let batch = await poll('', '0');
			for (const text of ['one', 'two']) {
				const next = poll(`&after=${batch.position}`, batch['client-id']);
				await send(text);
				batch = await next;
				if (batch.messages.map((m) => m.data).join() !== text) throw new Error(`got ${JSON.stringify(batch)}`);
			}
		},
		SSE() {
			const x = exchange();
			const events = new EventSource(`poll/events?topic=${topic}`);
			events.addEventListener('client-id', x.begin);
			events.onmessage = (e) => x.take(e.data);
			events.onerror = () => x.reject(new Error(`an error, readyState ${events.readyState}`));
			return x.promise.finally(() => events.close());
		},
		WebSocket() {
			const x = exchange();
			const ws = new WebSocket(new URL('poll/ws', location.href.replace('http', 'ws')), 'gpoll.v1');
			ws.onopen = () => ws.send(JSON.stringify({ hello: { topics: [topic] } }));
			ws.onmessage = (e) => {
				const frame = JSON.parse(e.data);
				if (frame.welcome) x.begin();
				else if ('data' in frame) x.take(frame.data);
			};
			ws.onclose = (e) => x.reject(new Error(`closed with ${e.code} ${e.reason}`));
			return x.promise.finally(() => ws.close());
		},
	};
	const late = new Promise((_, reject) => setTimeout(() => reject(new Error('nothing came within 10 s')), 10_000));
	try {
		await Promise.race([listeners[transport](), late]);
		return '';
	} catch (e) {
		return String(e);
	}
}

const results = [];
try {
	await Promise.all(Object.entries(JSON.parse(task)).map(async ([Proxy, urls]) => {
		const page = await context.newPage();
		for (const [Index, url] of urls.entries()) {
			let failed = '';
			await page.goto(url).catch((e) => { failed = String(e); });
			for (const Transport of ['long-poll', 'SSE', 'WebSocket']) {
				results.push({ Proxy, Index, Transport, Error: failed || await page.evaluate(listen, Transport) });
			}
		}
	}));
} finally {
	await context.close();
	await rm(profile, { recursive: true, force: true });
}
console.log(JSON.stringify(results));
