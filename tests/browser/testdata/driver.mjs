// Drives Chromium for a Go program: a line of JSON in, a line of JSON out.
//
//   node driver.mjs <package.json beside playwright-core> <chromium>
//
// {"id", "op", …} is answered by {"id", "value"} or {"id", "error"}. The end of the input ends the browser.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const [modules, executablePath] = process.argv.slice(2);
const { chromium } = createRequire(modules)('playwright-core');
const browser = await chromium.launch({
	executablePath, headless: true, timeout: 60_000,
	ignoreDefaultArgs: ['--disable-back-forward-cache'],
	args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
		'--disable-sync', '--js-flags=--expose-gc', '--enable-precise-memory-info'],
});
const contexts = new Map();
const raws = new Map(); // contexts that Playwright does not know
const pages = new Map();
let last = 0;

const ops = {
	/** Opens a page in a context: a browser of its own, with its own storage. */
	async open({ context, url }) {
		if (!contexts.has(context)) contexts.set(context, await browser.newContext());
		const page = await contexts.get(context).newPage();
		const id = ++last;
		pages.set(id, { page, complaints: [], cdp: undefined });
		page.on('pageerror', (e) => pages.get(id).complaints.push(e.stack || String(e)));
		page.on('console', (m) => {
			// Chromium reports every failed request; the tests make them fail.
			if (m.type() === 'error' && !/Failed to load resource|WebSocket connection to|net::ERR_|blocked by CORS policy/.test(m.text())) pages.get(id).complaints.push(m.text());
		});
		await page.goto(url);
		return id;
	},
	/**
	 * Opens a page that can be hidden: to Playwright's own pages the browser says that they are visible, always. Only eval,
	 * cdp, hide and complaints know such a page.
	 */
	async raw({ context, url }) {
		const session = await browser.newBrowserCDPSession();
		if (!raws.has(context)) raws.set(context, session.send('Target.createBrowserContext'));
		const { browserContextId } = await raws.get(context);
		const open = async (url) => (await session.send('Target.createTarget', { url, browserContextId })).targetId;
		const targetId = await open('about:blank');
		const { sessionId } = await session.send('Target.attachToTarget', { targetId, flatten: false });
		const waiting = new Map();
		const complaints = [];
		let loaded;
		session.on('Target.receivedMessageFromTarget', (e) => {
			const m = e.sessionId === sessionId ? JSON.parse(e.message) : {};
			if (m.method === 'Runtime.exceptionThrown') complaints.push(m.params.exceptionDetails.exception?.description);
			if (m.method === 'Page.loadEventFired') loaded?.();
			waiting.get(m.id)?.(m);
		});
		const send = (method, params = {}) => new Promise((done, no) => {
			const id = ++last;
			waiting.set(id, (m) => m.error ? no(new Error(m.error.message)) : done(m.result));
			session.send('Target.sendMessageToTarget', { sessionId, message: JSON.stringify({ id, method, params }) }).catch(no);
		});
		const page = {
			send,
			async evaluate(expression) {
				const { result, exceptionDetails } = await send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
				if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
				return result.value;
			},
			/** Brings another tab to the front. */
			async hide() {
				await session.send('Target.activateTarget', { targetId: await open('about:blank') });
				await page.evaluate('new Promise(done => document.hidden ? done() : document.addEventListener("visibilitychange", done))');
			},
		};
		await send('Runtime.enable');
		await send('Page.enable');
		const load = new Promise((done) => { loaded = done; });
		await send('Page.navigate', { url });
		await load;
		const id = ++last;
		pages.set(id, { page, complaints });
		return id;
	},
	hide: ({ page }) => pages.get(page).page.hide().then(() => true),
	goto: ({ page, url }) => pages.get(page).page.goto(url, { waitUntil: 'commit' }).then(() => true),
	back: ({ page }) => pages.get(page).page.goBack({ waitUntil: 'commit' }).then(() => true),
	eval: ({ page, js }) => pages.get(page).page.evaluate(js),
	complaints: ({ page }) => pages.get(page).complaints,
	async cdp({ page, method, params }) {
		const p = pages.get(page);
		p.cdp ??= p.page.send ? p.page : await p.page.context().newCDPSession(p.page);
		return p.cdp.send(method, params);
	},
	close: ({ page }) => pages.get(page).page.close({ runBeforeUnload: false }).then(() => true),
	offline: ({ context, offline }) => contexts.get(context).setOffline(offline).then(() => true),
	async end({ context }) {
		if (raws.has(context)) await (await browser.newBrowserCDPSession()).send('Target.disposeBrowserContext', await raws.get(context));
		raws.delete(context);
		await contexts.get(context)?.close();
		contexts.delete(context);
	},
};

console.log(JSON.stringify({ id: 0, value: browser.version() }));
for await (const line of createInterface({ input: process.stdin })) {
	const { id, op, ...args } = JSON.parse(line);
	Promise.resolve().then(() => ops[op](args)).then(
		(value) => console.log(JSON.stringify({ id, value: value ?? null })),
		(e) => console.log(JSON.stringify({ id, error: String(e?.stack ?? e) })));
}
await browser.close();
