// The doctor tries the visitor's own path to the server, by each transport alone, and names the cure of what fails.

import { $, element, say } from './dom.js';
import { ALL, GpollSource, mount } from './live.js';
import { CURES, NAMES, faultSentence, reason, sentence } from './words.js';

const PATIENCE = 15_000; // ms for a transport to work

/** @typedef {{ms: number} | {code: string, said: string}} Finding */

/** @param {import('../../../js/gpoll.js').Transport} transport @returns {Promise<Finding>} */
function examine(transport) {
	const begun = performance.now();
	const source = new GpollSource(mount, { transports: [transport] });
	return new Promise((resolve) => {
		const late = setTimeout(resolve, PATIENCE, { code: 'unreachable', said: 'nothing came back in 15 seconds' });
		source.onstatus = ({ state, reasons, error }) => {
			if (state === 'connected') resolve({ ms: performance.now() - begun });
			else if (error) resolve({ code: reasons[0] ?? error.code, said: reasons[0] ? reason(reasons[0]) : faultSentence(error) });
			else return;
			clearTimeout(late);
		};
	}).finally(() => {
		source.onstatus = null;
		source.close();
	});
}

/** What the server says of this page's origin: a browser does not show its answer to a WebSocket. */
async function refusedOrigin() {
	const headers = { 'Content-Type': 'application/json', 'Gpoll-Client-Id': '0' };
	const answer = await fetch(`${mount}/commands`, { method: 'POST', headers, body: '[]' }).then((r) => r.json(), () => ({})).catch(() => ({}));
	return answer.error === 'origin' ? answer.message : '';
}

/** @param {string} transport @param {Finding} found */
async function report(transport, found) {
	const row = element('li', '', element('strong', '', NAMES[transport]));
	row.dataset.transport = transport;
	row.dataset.works = String('ms' in found);
	if ('ms' in found) {
		row.append(element('p', '', `works, open after ${Math.round(found.ms)} ms`));
		return row;
	}
	const origin = await refusedOrigin();
	const cures = origin ? CURES.origin : CURES[found.code] ?? [];
	row.append(element('p', '', `fails: ${found.said} `, element('code', '', found.code)));
	if (origin) row.append(element('p', '', sentence(origin)));
	if (cures.length > 0) row.append(element('ul', 'cures', ...cures.map((cure) => element('li', '', cure))));
	return row;
}

$('examine').addEventListener('click', async () => {
	$('examine').disabled = true;
	say($('doctor-say'), 'Trying each transport alone …');
	$('findings').replaceChildren();
	const rows = await Promise.all(ALL.map(async (transport) => report(transport, await examine(transport))));
	$('findings').replaceChildren(...rows);
	const works = rows.filter((row) => row.dataset.works === 'true').length;
	say($('doctor-say'), works === ALL.length ? 'All three transports reach the server.' :
		works > 0 ? `${works} of 3 transports reach the server: gpoll works here, and could work better.` : 'No transport reaches the server.');
	$('examine').disabled = false;
});
