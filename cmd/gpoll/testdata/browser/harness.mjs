// What the steps of browser.mjs need: a server that they may kill and start again, a page in Chromium, and a report.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

export const [gpoll, executablePath, addr, readme, readmeAddr] = process.argv.slice(2);
export const DEADLINE = 15_000; // ms for anything to happen
export const TRANSPORTS = { websocket: ['WebSocket', 'ws'], sse: ['SSE', 'sse'], 'long-poll': ['Long-poll', 'poll'] };

/** Starts gpoll and returns it, once it listens. */
export async function start(at, ...flags) {
	const child = spawn(gpoll, ['-addr', at, '-drain', '5s', '-shutdown-spread', '1s', '-log-level', 'error', ...flags], { stdio: ['ignore', 'pipe', 'inherit'] });
	const ended = once(child, 'exit');
	for await (const line of createInterface({ input: child.stdout })) {
		const url = /^\s+(http:\/\/\S+)\/$/.exec(line)?.[1];
		if (url) return { child, url, ended };
	}
	throw new Error('gpoll ended before it listened');
}

/** For the steps that break connections. */
export let server = await start(addr);
/** For those that look at the parts of the page. */
export const calm = await start('127.0.0.1:0');

/** Starts the server anew, after the one before was killed or has ended. */
export async function serve(...flags) {
	server.child.kill('SIGKILL');
	await server.ended;
	server = await start(addr, ...flags);
}

export async function post(text, topic = '', to = server) {
	const response = await fetch(`${to.url}/send${topic && `?topic=${topic}`}`, { method: 'POST', body: text });
	const body = await response.text();
	assert.equal(response.status, 200, body);
	return Number(JSON.parse(body).position.split('-')[1]);
}

const browser = await chromium.launch({
	executablePath, timeout: 60_000,
	args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const complaints = []; // of pages or the browser about them, such as a violation of the Content-Security-Policy
/** Returns a window, whose pages Chromium does not slow down for those of another one. */
async function newContext() {
	const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
	context.setDefaultTimeout(DEADLINE);
	context.on('page', (page) => {
		page.on('pageerror', (e) => complaints.push(e.stack || String(e)));
		page.on('console', (m) => {
			// Chromium reports every failed request; the steps make them fail.
			if (m.type() === 'error' && !/Failed to load resource|WebSocket connection to|net::ERR_/.test(m.text())) complaints.push(m.text());
		});
	});
	return context;
}

export const context = await newContext();
export const page = await context.newPage();
export const calmContext = await newContext();
export const calmPage = await calmContext.newPage();

export const state = (name, of = page) => of.locator(`#state[data-state=${name}]`).waitFor();
export const message = (text, of = page) => of.locator('#log .message', { has: of.getByText(text, { exact: true }) });
export const over = (words, of = page) => of.locator('#state-detail', { hasText: words }).waitFor();

export async function open(query, url = server.url, of = page) {
	await of.goto(`${url}/?${query}`);
	await state('connected', of);
}

/** Waits until the server says that so many clients are attached by the transport. */
export async function attached(transport) {
	const deadline = performance.now() + DEADLINE;
	for (;;) {
		const figures = await (await fetch(`${server.url}/stats`)).json();
		if (figures.attached[transport] > 0) return;
		assert.ok(performance.now() < deadline, `attached: ${JSON.stringify(figures.attached)}`);
	}
}

/** Waits until the page says what became of a message that it sent, which may be after the message has come back. */
export const sent = (text, of = page) => of.locator('#send-result').filter({ hasText: text }).waitFor();

export async function step(name, run) {
	const started = performance.now();
	try {
		await run();
		assert.deepEqual(complaints, []);
		console.log(`ok    ${name} (${Math.round(performance.now() - started)} ms)`);
	} catch (e) {
		console.log(`FAIL  ${name}: ${e.stack ?? e}`);
		for (const p of browser.contexts().flatMap((c) => c.pages())) console.log(await p.locator('body').innerText({ timeout: 1_000 }).then((t) => t.slice(0, 3_000), String));
		throw e;
	}
}

export async function end() {
	await browser.close();
	for (const { child } of [server, calm]) child.kill('SIGKILL');
}
