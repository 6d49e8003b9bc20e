// The server's figures, asked for every second while the page can be seen.

import { $, authorization, root } from './dom.js';
import { latencies } from './demo.js';

export const KEPT = 120; // seconds

/** @typedef {{attached: Record<string, number>, clients: number, published: number, delivered: number, gaps: Record<string, number>, fallbacks: Record<string, number>,
 *   window: {messages: number, bytes: number}}} Figures */

/**
 * Calls f with the figures of the moment, those of a second before, the seconds between, and the times that this page's
 * messages took.
 * @param {(now: Figures, before: Figures, seconds: number, took: number[]) => void} f
 */
export function eachSecond(f) {
	/** @type {Figures | undefined} */ let before;
	let at = 0;
	let asking = false;
	setInterval(async () => {
		if (document.hidden || asking) return;
		asking = true;
		const r = await fetch(root.stats, { headers: authorization() }).catch(() => undefined);
		asking = false;
		$('stats-token').hidden = r?.status !== 401;
		if (!r?.ok) return;
		/** @type {Figures} */ const now = await r.json();
		const t = performance.now();
		f(now, before ?? now, before ? (t - at) / 1000 : 1, latencies());
		before = now;
		at = t;
	}, 1_000);
}
