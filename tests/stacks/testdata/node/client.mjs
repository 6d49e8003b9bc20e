// Reads events with a client that others wrote, and prints what the client hands to its program: a line of JSON for each.
//
//	node client.mjs <client> <url>

const [name, url] = process.argv.slice(2);
const print = (event) => console.log(JSON.stringify({ name: event.type ?? event.event ?? '', id: event.lastEventId ?? event.id ?? '', data: event.data }));

/** A program adds listeners for what it knows, and onmessage for the rest. */
function listen(source) {
	source.onmessage = print;
	for (const kind of ['client-id', 'gap', 'position']) source.addEventListener(kind, print);
}

switch (name) {
case 'fetch-event-source': { // it knows browsers only, and calls onmessage for every event
	globalThis.window = globalThis;
	const { fetchEventSource } = await import('@microsoft/fetch-event-source');
	await fetchEventSource(url, {
		openWhenHidden: true,
		onmessage: print,
		onclose() { throw new Error('the server has closed the stream: come back'); }, // else the client ends
	});
	break;
}
case 'event-source-polyfill': {
	const { EventSourcePolyfill } = (await import('event-source-polyfill')).default;
	listen(new EventSourcePolyfill(url));
	break;
}
case 'eventsource': listen(new (await import('eventsource')).EventSource(url)); break;
case 'eventsource-2': listen(new (await import('eventsource-2')).default(url)); break;
case 'launchdarkly-eventsource': listen(new (await import('launchdarkly-eventsource')).default.EventSource(url)); break;
case 'eventsource-client': { // it hands every event to one function
	const { createEventSource } = await import('eventsource-client');
	createEventSource({ url, onMessage: print });
	break;
}
default: throw new Error(`no client is called ${name}`);
}
