// Measures Socket.IO over its WebSocket transport.
import { createServer } from 'node:http';
import { Server } from 'socket.io';
import { main } from './control.mjs';

const server = createServer();
const io = new Server(server, { serveClient: false });

main(server, (message) => io.emit('m', message));
