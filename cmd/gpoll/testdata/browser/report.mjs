// Looks at a report of gpollbench in Chromium.
//
//   node report.mjs <chromium binary> <report.html> [folder for pictures]

import assert from 'node:assert/strict';
import { pathToFileURL } from 'node:url';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [executablePath, file, pictures] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'], timeout: 60_000 });
const grounds = new Set();
for (const [colorScheme, width, across] of [['light', 1280, 3], ['dark', 1280, 3], ['light', 700, 2], ['light', 390, 1], ['dark', 390, 1]]) {
	const page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme });
	await page.goto(pathToFileURL(file).href);
	const seen = await page.evaluate(() => {
		const style = (selector) => getComputedStyle(document.querySelector(selector));
		return {
			width: document.documentElement.scrollWidth,
			ground: style('body').backgroundColor, ink: style('body').color, label: style('.chart .label').fill,
			fonts: [style('body').fontFamily, style('.chart text').fontFamily],
			across: new Set([...document.querySelectorAll('.plots figure')].map((f) => f.getBoundingClientRect().left)).size,
			title: [document.title, document.querySelector('h1').textContent], code: document.querySelector('p > code').textContent,
			outside: [...document.querySelectorAll('.chart text')].filter((e) => { // of its chart
				const [text, chart] = [e.getBoundingClientRect(), e.closest('svg').getBoundingClientRect()];
				return text.left < chart.left - 1 || text.right > chart.right + 1 || text.top < chart.top - 1 || text.bottom > chart.bottom + 1;
			}).map((e) => e.textContent),
			strokes: new Set([...document.querySelectorAll('.chart .line')].map((e) => getComputedStyle(e).stroke)).size,
		};
	});
	assert.ok(seen.width <= width, `${seen.width} pixels wide at ${width}`);
	assert.equal(seen.across, across, `${seen.across} plots beside each other at ${width}`);
	assert.equal(seen.fonts[0], seen.fonts[1]);
	assert.equal(seen.ink, seen.label);
	assert.notEqual(seen.title[0], '');
	assert.equal(seen.title[0], seen.title[1]);
	assert.match(seen.code, /^gpollbench /);
	assert.deepEqual(seen.outside, []);
	assert.equal(seen.strokes, 3);
	grounds.add(`${colorScheme} ${seen.ground}`);
	if (pictures) await page.screenshot({ path: join(pictures, `report-${colorScheme}-${width}.png`), fullPage: true });
	await page.close();
}
assert.equal(grounds.size, 2); // one for each scheme
assert.equal(new Set([...grounds].map((g) => g.split(' ').slice(1).join(' '))).size, 2);
await browser.close();
