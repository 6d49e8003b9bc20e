// The page of the README.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { dirname } from 'node:path';
import { DEADLINE, context, readme, readmeAddr, step } from './harness.mjs';
import { proxy } from './proxy.mjs';

export async function readmePage() {
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
}
