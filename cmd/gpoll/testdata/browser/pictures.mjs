// Takes the pictures of the page that are in docs/images.
//
//   node pictures.mjs <gpoll binary> <chromium binary> <folder> [whole]
//
// With "whole" they show the page to its end.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const [gpoll, executablePath, folder, whole] = process.argv.slice(2);
const browser = await chromium.launch({
	executablePath, args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});

const sizes = { '': { width: 1280, height: 1000 }, 'phone-': { width: 390, height: 1000 } };
await Promise.all(['light', 'dark'].flatMap((colorScheme) => Object.entries(sizes).map(async ([size, viewport]) => {
	const server = spawn(gpoll, ['-addr', '127.0.0.1:0'], { stdio: ['ignore', 'pipe', 'inherit'] }); // whose log each restarts
	let url = '';
	for await (const line of createInterface({ input: server.stdout })) if ((url = /^\s+(http:\/\/\S+)\/$/.exec(line)?.[1] ?? '')) break;
	const page = await browser.newPage({ viewport, colorScheme, locale: 'en-GB', deviceScaleFactor: size ? 1.5 : 1 });
	page.on('console', (m) => console.log(`${size}${colorScheme}: ${m.text()}`));
	page.on('pageerror', (e) => console.log(`${size}${colorScheme}: ${e.stack}`));
	await page.goto(url);
	await page.locator('#demo').click();
	const by = (transport) => page.locator(`#lane-${transport}[data-use=true]`).waitFor();
	const more = async (n) => {
		const now = Number(await page.locator('#tally-received').textContent());
		await page.waitForFunction((n) => Number(document.getElementById('tally-received').textContent) >= n, now + n);
	};
	await by('websocket');
	await more(24);
	await page.locator('#cut').click();
	await by('sse');
	await more(20);
	await page.locator('#buffer').click();
	await by('long-poll');
	await more(20);
	await page.locator('#restart').click();
	await page.locator('#switches .gap').waitFor();
	await more(8);
	await page.locator('#buffer').click();
	await by('websocket');
	await more(20);
	if (whole) {
		await page.locator('#examine').click();
		await page.locator('#findings li').first().waitFor();
	}
	await page.mouse.move(0, 0);
	await page.evaluate(() => scrollTo(0, 0));
	await page.screenshot({ path: join(folder, `page-${size}${colorScheme}.png`), fullPage: !!whole });
	await page.close();
	server.kill('SIGTERM');
	await once(server, 'exit');
})));
await browser.close();
