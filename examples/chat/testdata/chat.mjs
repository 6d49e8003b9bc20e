// Two people in the room, one in Chromium, one on the other side of standard input: node chat.mjs <playwright-core> <chromium> <address>
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const [playwright, executablePath, address] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(playwright);
const profile = await mkdtemp(join(tmpdir(), 'gpoll-chat-'));
const context = await chromium.launchPersistentContext(profile, {
	executablePath, headless: true, timeout: 60_000,
	args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
try {
	context.setDefaultTimeout(20_000);
	const page = await context.newPage();
	const complaints = [];
	page.on('pageerror', e => complaints.push(e.message));
	await page.goto(`${address}/?name=Bea`);
	const says = text => page.locator('#log li', { hasText: text }).waitFor();
	await page.locator('#here li', { hasText: 'Bea' }).waitFor();
	await page.locator('#here li', { hasText: 'Ann' }).waitFor();
	await says('before she came');
	const say = async text => {
		await page.locator('#text').fill(text);
		await page.locator('#text').press('Enter');
	};
	await say('/who');
	await says(/Ann, Bea|Bea, Ann/);
	await say('/what');
	await says('there is only /who');
	await say('<b>hello</b> from the page');
	await says('Bea<b>hello</b> from the page');
	await says('Annhello from the terminal');
	await page.locator('#here li', { hasText: 'Ann' }).waitFor({ state: 'detached' });
	assert.deepEqual(complaints, []);
	console.log('the page: all steps passed');
} finally {
	await context.close();
	await rm(profile, { recursive: true, force: true });
}
