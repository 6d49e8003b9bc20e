// What every part of the page needs of the document.

/** @param {string} id @returns {any} */
export const $ = (id) => document.getElementById(id);

/** What the server says of itself, in the attributes of the root. */
export const root = /** @type {Record<string, string>} */ (document.documentElement.dataset);

export const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });

export const calm = matchMedia('(prefers-reduced-motion: reduce)');

/** @param {string} tag @param {string} name of its class @param {...(string | Node)} content */
export function element(tag, name, ...content) {
	const e = document.createElement(tag);
	if (name) e.className = name;
	e.append(...content);
	return e;
}

/** @param {Date} at */
export function time(at) {
	const e = /** @type {HTMLTimeElement} */ (element('time', 'time', clock.format(at)));
	e.dateTime = at.toISOString();
	return e;
}

/** Sets a text where it has changed: a live region speaks at each change. @param {Element} e @param {string} text */
export function say(e, text) {
	if (e.textContent !== text) e.textContent = text;
}

/** The headers that carry the publish token, if the server wants one. @returns {Record<string, string>} */
export function authorization() {
	const token = $('token')?.value;
	return token ? { Authorization: `Bearer ${token}` } : {};
}

/** A colour of page.css, as canvases take it. @param {string} name */
export function colour(name) {
	const probe = $('colour');
	probe.style.color = `var(--${name})`;
	return getComputedStyle(probe).color;
}

/** Calls f once in the next frame, however often the function that it returns is called. @param {() => void} f */
export function eachFrame(f) {
	let asked = false;
	return () => {
		if (asked) return;
		asked = true;
		requestAnimationFrame(() => {
			asked = false;
			f();
		});
	};
}

/** A Position as its epoch and its number. @param {string} position @returns {[string, number]} */
export function numbered(position) {
	const [epoch, seq] = position.split('-');
	return [epoch, Number(seq)];
}
