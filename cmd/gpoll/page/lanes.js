// One session, three ways: a lane for each transport, and a mark for each message in the lane by which it came.

import { $, calm, colour, element, time } from './dom.js';
import { ALL, on, status } from './live.js';
import { NAMES, gapSentence, reason } from './words.js';

const SPAN = 30_000; // ms from one end of the lanes to the other
const ENTRIES = 5; // of the log
const SLOW = 1_000; // ms between two drawings where motion is not wanted
const EDGE = 10; // px between the present and the right end

/** @typedef {{lane: number, from: number, to: number}} Stay on a transport, while the session was attached by it */
/** @type {Stay[]} */ let stays = [];
/** @type {{lane: number, at: number}[]} */ let marks = [];
/** @type {number[]} */ let gaps = [];
const came = [0, 0, 0];
/** @type {Stay | undefined} */ let now;
/** @type {Stay | undefined} */ let before;

on('message', () => {
	const lane = ALL.indexOf(/** @type {any} */ (status()?.transport));
	if (lane < 0) return;
	marks.push({ lane, at: performance.now() });
	came[lane]++;
});

on('gap', (gap) => {
	gaps.push(performance.now());
	note(gapSentence(gap) + (gap.reason === 'epoch' ? ' What had not come of the old log cannot come any more, so the server says it.' : ''), 'gap');
});

on('status', ({ state, transport, reasons }) => {
	const at = performance.now();
	const lane = ALL.indexOf(/** @type {any} */ (transport));
	if (now && now.lane !== lane) {
		now.to = at;
		before = now;
		now = undefined;
	}
	if (lane >= 0 && !now) {
		now = { lane, from: at, to: Infinity };
		stays.push(now);
		const why = reasons.map(reason).join(', and ');
		if (!before) note(`The session began by ${NAMES[transport]}${why && `: ${why}`}.`);
		else if (before.lane === lane) note(`${NAMES[transport]} broke, came back after ${seconds(at - before.to)}, and the session read on.`);
		else note(`${NAMES[ALL[before.lane]]} → ${NAMES[transport]}: ${why || (lane < before.lane ? 'it works again' : 'as you chose')}.`, '', reasons);
	}
	for (const [i, name] of ALL.entries()) {
		const bad = state === 'connected' && reasons.find((r) => r.startsWith(['ws_', 'sse_', 'poll_'][i]));
		$(`lane-${name}`).dataset.use = String(i === lane);
		$(`lane-${name}-says`).textContent = i === lane ? 'carries the session' : bad ? bad : 'stands by';
	}
	$('lanes').setAttribute('aria-label', now ? `The session is carried by ${NAMES[transport]}` : 'The session is between two connections');
});

/** @param {number} ms */
const seconds = (ms) => `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;

/** @param {string} text @param {string} [name] @param {readonly string[]} [codes] */
function note(text, name = '', codes = []) {
	const says = element('span', 'says', text);
	for (const code of codes) says.append(' ', element('code', '', code));
	$('switches').prepend(element('li', name, time(new Date()), says));
	while ($('switches').childElementCount > ENTRIES) $('switches').lastElementChild.remove();
}

/** @type {Record<string, string>} */ let ink = {};
function colours() {
	ink = Object.fromEntries(['websocket', 'sse', 'long-poll', 'line', 'soft', 'gap', 'card'].map((name) => [name, colour(name)]));
}
colours();
addEventListener('colours', colours);

const canvas = /** @type {HTMLCanvasElement} */ ($('lanes'));
const g = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
let width = 0, height = 0;
new ResizeObserver(() => {
	({ clientWidth: width, clientHeight: height } = canvas);
	canvas.width = width * devicePixelRatio;
	canvas.height = height * devicePixelRatio;
	draw();
}).observe(canvas);

function draw() {
	const at = performance.now();
	const old = at - SPAN - 1_000;
	stays = stays.filter((s) => s.to > old);
	marks = marks.filter((m) => m.at > old);
	gaps = gaps.filter((t) => t > old);
	/** @param {number} t */
	const x = (t) => width - EDGE - (at - t) / SPAN * (width - EDGE);
	/** @param {number} lane */
	const y = (lane) => (lane + 0.5) * height / 3;
	const half = Math.min(height / 6 - 6, 15);
	g.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
	g.clearRect(0, 0, width, height);
	g.lineWidth = 1;
	g.strokeStyle = ink.line;
	for (const lane of ALL.keys()) line(0, y(lane), width, y(lane));
	for (const [i, s] of stays.entries()) {
		const [from, to] = [Math.max(x(s.from), -20), x(Math.min(s.to, at))];
		g.fillStyle = g.strokeStyle = ink[ALL[s.lane]];
		g.globalAlpha = 0.16;
		g.beginPath();
		g.roundRect(from, y(s.lane) - half, Math.max(to - from, 2), 2 * half, 6);
		g.fill();
		g.globalAlpha = 1;
		const last = stays[i - 1];
		if (!last || last.lane === s.lane) continue;
		g.strokeStyle = ink.soft; // the switch
		g.lineWidth = 1.5;
		g.setLineDash([3, 3]);
		line(x(last.to), y(last.lane), x(s.from), y(s.lane));
		g.setLineDash([]);
	}
	for (const m of marks) dot(x(m.at), y(m.lane), width < 500 ? 2 : 3, ink[ALL[m.lane]]);
	g.strokeStyle = ink.gap;
	g.lineWidth = 2;
	for (const t of gaps) line(x(t), 4, x(t), height - 4);
	if (now) {
		dot(width - EDGE, y(now.lane), 7, ink.card);
		dot(width - EDGE, y(now.lane), 5, ink[ALL[now.lane]]);
	}
}

/** @param {number} x1 @param {number} y1 @param {number} x2 @param {number} y2 */
function line(x1, y1, x2, y2) {
	g.beginPath();
	g.moveTo(x1, y1);
	g.lineTo(x2, y2);
	g.stroke();
}

/** @param {number} x @param {number} y @param {number} r @param {string} colour */
function dot(x, y, r, colour) {
	g.fillStyle = colour;
	g.beginPath();
	g.arc(x, y, r, 0, 2 * Math.PI);
	g.fill();
}

// It moves while it can be seen.
let seen = true;
let drawn = 0;
new IntersectionObserver(([e]) => { seen = e.isIntersecting; }).observe(canvas);
requestAnimationFrame(function move(at) {
	requestAnimationFrame(move);
	if (!seen || at - drawn < (calm.matches ? SLOW : 30)) return;
	drawn = at;
	draw();
	for (const [i, name] of ALL.entries()) {
		const text = came[i].toLocaleString();
		if ($(`lane-${name}-count`).textContent !== text) $(`lane-${name}-count`).textContent = text;
	}
});
