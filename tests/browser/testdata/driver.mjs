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
const pages = new Map();
let last = 0;

const ops = {
	/** Opens a page in a context: a browser of its own, with its own storage. */
	async open({ context, url }) {
		if (!contexts.has(context)) contexts.set(context, await browser.newContext());
		const page = await contexts.get(context).newPage();
		const id = ++last;
		pages.set(id, { page, complaints: [], cdp: undefined });
		page.on('pageerror', (e) => pages.get(id).complaints.push(e.stack ?? e.message));
		page.on('console', (m) => {
			// Chromium reports every failed request; the tests make them fail.
			if (m.type() === 'error' && !/Failed to load resource|WebSocket connection to|net::ERR_/.test(m.text())) pages.get(id).complaints.push(m.text());
		});
		await page.goto(url);
		return id;
	},
	goto: ({ page, url }) => pages.get(page).page.goto(url, { waitUntil: 'commit' }).then(() => true),
	back: ({ page }) => pages.get(page).page.goBack({ waitUntil: 'commit' }).then(() => true),
	eval: ({ page, js }) => pages.get(page).page.evaluate(js),
	complaints: ({ page }) => pages.get(page).complaints,
	async cdp({ page, method, params }) {
		const p = pages.get(page);
		p.cdp ??= await p.page.context().newCDPSession(p.page);
		return p.cdp.send(method, params);
	},
	close: ({ page }) => pages.get(page).page.close({ runBeforeUnload: false }).then(() => true),
	offline: ({ context, offline }) => contexts.get(context).setOffline(offline).then(() => true),
	async end({ context }) {
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
