// Measures ws, the WebSocket library of Node.js, with the broadcast that its README shows.
import { createServer } from 'node:http';
import { WebSocketServer, WebSocket } from 'ws';
import { main } from './control.mjs';

const server = createServer();
const wss = new WebSocketServer({ server, path: '/ws', perMessageDeflate: false });

main(server, (message) => {
  for (const client of wss.clients) {
    if (client.readyState === WebSocket.OPEN) client.send(message);
  }
});
