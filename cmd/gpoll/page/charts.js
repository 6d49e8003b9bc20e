// The server's figures as live charts.

import { $, colour, element } from './dom.js';
import { KEPT, eachSecond } from './stats.js';

const SHORT = 30; // seconds that a chart shows at least

/** @type {any} */ const uPlot = /** @type {any} */ (globalThis).uPlot; // a script before this one

/**
 * @typedef {object} Line
 * @property {string} name
 * @property {string} ink a colour of page.css
 * @property {string} unit
 * @property {'left' | 'right'} [side] of its axis
 */
/** @typedef {{title: string, note: string, lines: Line[]}} Plot */

/** @type {Plot[]} */
const plots = [
	{ title: 'Clients by transport', note: 'attached to this server', lines: [
		{ name: 'WebSocket', ink: 'websocket', unit: '' }, { name: 'SSE', ink: 'sse', unit: '' }, { name: 'Long-poll', ink: 'long-poll', unit: '' }] },
	{ title: 'Messages per second', note: 'into the log, and out to clients', lines: [
		{ name: 'Delivered', ink: 'accent', unit: '/s' }, { name: 'Published', ink: 'sse', unit: '/s' }] },
	{ title: 'Send to receive', note: 'of this page’s own messages, round trip', lines: [
		{ name: 'Median', ink: 'accent', unit: ' ms' }, { name: 'Slowest', ink: 'gap', unit: ' ms' }] },
	{ title: 'Window', note: 'what a client that comes back can still get', lines: [
		{ name: 'Messages', ink: 'accent', unit: '' }, { name: 'Memory', ink: 'long-poll', unit: ' KiB', side: 'right' }] },
	{ title: 'Gaps told', note: 'by reason, since the start', lines: [
		{ name: 'evicted', ink: 'accent', unit: '' }, { name: 'expired', ink: 'sse', unit: '' }, { name: 'epoch', ink: 'gap', unit: '' },
		{ name: 'broker', ink: 'long-poll', unit: '' }, { name: 'future', ink: 'soft', unit: '' }] },
	{ title: 'Fallbacks told', note: 'what clients could not use, since the start', lines: [
		{ name: 'WebSocket', ink: 'websocket', unit: '' }, { name: 'SSE', ink: 'sse', unit: '' }, { name: 'Long-poll', ink: 'long-poll', unit: '' }] },
];

/** A chart: its figure, and one list of numbers for each line, with the times before them. */
class Chart {
	/** @type {(number | null)[][]} */ data;
	/** @type {HTMLElement[]} */ values = [];
	#plot; #place; #uplot;

	/** @param {Plot} plot */
	constructor(plot) {
		this.#plot = plot;
		this.data = [[], ...plot.lines.map(() => [])];
		this.#place = element('div', 'place');
		this.#place.setAttribute('role', 'img');
		this.#place.setAttribute('aria-label', `${plot.title}, the last two minutes`);
		const legend = element('dl', 'legend', ...plot.lines.map(({ name, ink }) => {
			const value = element('dd', '', '–');
			this.values.push(value);
			return element('div', `ink-${ink}`, element('dt', '', name), value);
		}));
		const caption = element('figcaption', '', element('h3', '', plot.title), element('p', 'hint', plot.note));
		$('charts').append(element('figure', 'chart', caption, this.#place, legend));
		this.#uplot = this.#make();
		new ResizeObserver(() => this.#uplot.setSize(this.#size())).observe(this.#place);
	}

	#size() { return { width: this.#place.clientWidth, height: this.#place.clientHeight }; }

	#make() {
		const [soft, line] = [colour('soft'), colour('line')];
		const font = '11px system-ui, sans-serif';
		const axis = { stroke: soft, font, grid: { stroke: line, width: 1 }, ticks: { show: false }, size: 44, gap: 4 };
		const right = this.#plot.lines.some((l) => l.side);
		return new uPlot({
			...this.#size(),
			legend: { show: false }, cursor: { show: false }, padding: [8, right ? 0 : 12, 0, 0],
			scales: { x: { time: false, range: () => [1 - Math.max(SHORT, this.data[1].length), 0] }, left: { range: from0 }, right: { range: from0 } },
			axes: [
				{ ...axis, size: 24, space: 60, values: (/** @type {any} */ _, /** @type {number[]} */ ticks) => ticks.map((t) => t === 0 ? 'now' : `${t} s`) },
				{ ...axis, scale: 'left', values: short },
				...(right ? [{ ...axis, scale: 'right', side: 1, grid: { show: false }, values: short }] : []),
			],
			series: [{}, ...this.#plot.lines.map(({ name, ink, side }) => ({
				label: name, scale: side ?? 'left', stroke: colour(ink), width: 2, points: { show: false },
			}))],
		}, this.#aligned(), this.#place);
	}

	/** The newest number stands at 0, whatever the clock says. */
	#aligned() {
		const n = this.data[1].length;
		return [Array.from({ length: n }, (_, i) => i + 1 - n), ...this.data.slice(1)];
	}

	/** @param {(number | null)[]} numbers */
	add(numbers) {
		for (const [i, n] of numbers.entries()) {
			const line = this.data[i + 1];
			line.push(n);
			if (line.length > KEPT) line.shift();
			this.values[i].textContent = n === null ? '–' : `${shortest(n)}${this.#plot.lines[i].unit}`;
		}
		this.#uplot.setData(this.#aligned());
	}

	recolour() {
		this.#uplot.destroy();
		this.#uplot = this.#make();
	}
}

/** @param {any} _ @param {number} __ @param {number | null} max @returns {[number, number]} */
const from0 = (_, __, max) => [0, Math.max(max ?? 0, 1) * 1.15];
/** @param {number} n */
const shortest = (n) => Intl.NumberFormat('en', { notation: n < 10_000 ? 'standard' : 'compact', maximumFractionDigits: n < 10 && n % 1 ? 1 : 0 }).format(n);
/** @param {any} _ @param {number[]} ticks */
const short = (_, ticks) => ticks.map((t) => t % 1 && t > 1 ? '' : Intl.NumberFormat('en', { notation: 'compact' }).format(t));

const charts = plots.map((plot) => new Chart(plot));
addEventListener('colours', () => charts.forEach((chart) => chart.recolour()));

eachSecond((now, before, seconds, took) => {
	took.sort((a, b) => a - b);
	const rows = [
		['websocket', 'sse', 'long-poll'].map((name) => now.attached[name] ?? 0),
		[(now.delivered - before.delivered) / seconds, (now.published - before.published) / seconds].map((n) => Math.max(0, Math.round(n * 10) / 10)),
		[took[took.length >> 1] ?? null, took.at(-1) ?? null],
		[now.window.messages, now.window.bytes / 1024],
		plots[4].lines.map(({ name }) => now.gaps[name] ?? 0),
		['ws_', 'sse_', 'poll_'].map((prefix) => Object.entries(now.fallbacks).reduce((sum, [code, n]) => sum + (code.startsWith(prefix) ? n : 0), 0)),
	];
	for (const [i, row] of rows.entries()) charts[i].add(row);
});
