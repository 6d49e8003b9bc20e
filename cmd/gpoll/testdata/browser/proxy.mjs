// A proxy such as people have, in front of a server.

import { createServer, request } from 'node:http';
import { connect } from 'node:net';
import { once } from 'node:events';

/**
 * @param {string} to  the server's host and port
 * @param {{prefix?: string, host?: string, webSocket?: boolean, events?: 'pass' | 'hold', down?: boolean}} how  may change at any time:
 *   prefix is taken away, host takes the place of the Host that came, without webSocket no Upgrade passes, events that are held are never sent on, down answers 502
 */
export async function proxy(to, how = {}) {
	const [host, port] = to.split(':');
	const inside = (url) => how.prefix ? (url.startsWith(how.prefix + '/') ? url.slice(how.prefix.length) : '') : url;
	const open = new Set();
	const server = createServer((req, res) => {
		const path = inside(req.url);
		if (how.down || !path) return res.writeHead(how.down ? 502 : 404).end();
		const onward = request({ host, port, path, method: req.method, headers: { ...req.headers, ...(how.host && { host: how.host }) } }, (answer) => {
			if (how.events === 'hold' && /event-stream/.test(answer.headers['content-type'] ?? '')) return answer.resume();
			res.writeHead(answer.statusCode, answer.headers);
			res.flushHeaders();
			answer.pipe(res);
			answer.on('error', () => res.destroy());
		});
		onward.on('error', () => res.headersSent ? res.destroy() : res.writeHead(502).end());
		res.on('close', () => onward.destroy());
		req.pipe(onward);
	});
	server.on('upgrade', (req, socket, head) => {
		socket.on('error', () => {});
		if (how.webSocket === false || how.down) return socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
		const onward = connect(Number(port), host, () => {
			const lines = [];
			for (let i = 0; i < req.rawHeaders.length; i += 2)
				lines.push(`${req.rawHeaders[i]}: ${how.host && /^host$/i.test(req.rawHeaders[i]) ? how.host : req.rawHeaders[i + 1]}`);
			onward.write(`${req.method} ${inside(req.url)} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`);
			onward.write(head);
			socket.pipe(onward).pipe(socket);
		});
		onward.on('error', () => socket.destroy());
		onward.on('close', () => socket.destroy());
		socket.on('close', () => onward.destroy());
	});
	server.on('connection', (socket) => { open.add(socket); socket.on('close', () => open.delete(socket)); });
	server.listen(0, '127.0.0.1');
	await once(server, 'listening');
	return {
		url: `http://127.0.0.1:${server.address().port}${how.prefix ?? ''}`, how,
		cut() { for (const socket of open) socket.destroy(); },
		close() { this.cut(); server.close(); },
	};
}
