// What the test's page does: listen() makes a GpollSource that writes down what it sees, and take() hands that on.

import * as client from "./poll/client.js";

let seen = [];
let heard; // is called at each event

const counted = () => {
	if (!window.events++) window.firstAt = performance.now();
	heard?.();
};

window.events = 0;
window.client = client;
window.listen = (options, Source = client.GpollSource, url = "./poll") => {
	const feed = window.feed = new Source(url, options);
	feed.onmessage = e => {
		seen.push({ topic: e.topic, data: typeof e.data == "string" ? e.data : [...e.data].join(), position: e.position });
		counted();
	};
	feed.ongap = ({ from, to, reason }) => {
		seen.push({ gap: { from, to, reason } });
		counted();
	};
	feed.onopen = e => {
		seen.push({ open: e.transport, id: feed.id, position: feed.position });
		heard?.();
	};
	feed.onstatus = ({ state, transport, reasons, error }) => {
		seen.push({ state, transport, reasons, error: error && { code: error.code, message: error.message } });
		heard?.();
	};
	feed.onrequest = data => "re: " + data;
};

/** Resolves once f() holds, which is asked at each event. */
window.until = (f, ms = 60e3) => new Promise((done, no) => {
	const timer = setTimeout(() => no(new Error("waited in vain: " + JSON.stringify(window.feed?.status) + " after " + events + " events")), ms);
	const before = heard;
	const look = heard = () => {
		before?.();
		if (!f()) return;
		if (heard == look) heard = before;
		clearTimeout(timer);
		done(true);
	};
	look();
});
window.by = (transport, ms) => until(() => feed.status.transport == transport, ms);
window.reached = (position, ms) => until(() => feed.position.slice(0, 16) == position.slice(0, 16) && +feed.position.slice(17) >= +position.slice(17), ms);
window.take = () => seen.splice(0);
window.ready = true;
