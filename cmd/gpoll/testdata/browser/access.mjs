// The page for everybody: axe finds nothing in it, in light and dark, on a phone and on a desk; it never scrolls sideways;
// it can be used without a pointer.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { calm as server, calmContext as context, calmPage as page, open, post, step } from './harness.mjs';

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

export async function access() {
	await step('axe finds nothing, and nothing is wider than the window', async () => {
		await open('', server.url, page);
		await page.locator('#demo').click();
		await post('a message to a topic', 'demo', server);
		await page.locator('#restart').click();
		await page.locator('#log .gap').waitFor();
		await page.locator('#examine').click();
		await page.locator('.findings > li').first().waitFor();
		await page.getByRole('button', { name: 'Stop sending' }).click();
		const devtools = await context.newCDPSession(page);
		const run = async () => { // without the page's policy, which lets no script in from outside
			const { result, exceptionDetails } = await devtools.send('Runtime.evaluate', {
				expression: `${axe};axe.run().then((r) => JSON.stringify(r.violations.map((v) => [v.id, v.nodes.map((n) => n.html.slice(0, 120) + ' ' + n.failureSummary)])))`,
				awaitPromise: true, returnByValue: true,
			});
			return exceptionDetails ? exceptionDetails.exception.description : JSON.parse(result.value);
		};
		for (const colorScheme of ['light', 'dark']) {
			await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
			for (const width of [360, 768, 1280, 3840]) {
				await page.setViewportSize({ width, height: width < 768 ? 640 : 800 });
				assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
				if (width === 360 || width === 1280) assert.deepEqual(await run(), [], `${colorScheme} at ${width}`);
			}
		}
		await page.emulateMedia({ colorScheme: null, reducedMotion: null });
		await page.setViewportSize({ width: 1280, height: 800 });
	});
	await step('the colours can be chosen, and stay', async () => {
		const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
		const light = await ground();
		const button = page.getByRole('button', { name: /^Colours/ });
		await button.click();
		assert.equal(await ground(), light);
		await button.click();
		assert.notEqual(await ground(), light);
		await page.reload();
		await page.getByRole('button', { name: 'Colours: dark' }).click();
		assert.equal(await ground(), light);
	});
	await step('the keyboard is enough', async () => {
		await open('', server.url, page);
		await page.keyboard.press('Tab');
		assert.equal(await page.evaluate(() => document.activeElement.textContent), 'To the content');
		await page.getByRole('button', { name: 'Cut the WebSocket' }).press('Enter');
		await page.locator('#lane-sse[data-use=true]').waitFor();
		await page.getByRole('radio', { name: 'Best' }).press('ArrowRight');
		assert.ok(await page.getByRole('radio', { name: 'WebSocket' }).isChecked());
		const hidden = await page.locator('button, input, textarea, [tabindex="0"]').evaluateAll((all) => all.filter((e) => {
			e.focus();
			const style = getComputedStyle(e.matches('[type=radio]') ? e.nextElementSibling : e);
			return !e.matches(':disabled') && style.outlineStyle === 'none';
		}).map((e) => e.outerHTML));
		assert.deepEqual(hidden, []);
	});
}
