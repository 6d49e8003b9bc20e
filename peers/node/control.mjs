// What package serve does for the servers in Go: answers commands, one JSON object a line.
import { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

const { values } = parseArgs({ options: { size: { type: 'string', default: '128' }, run: { type: 'string', default: '1' } } });
const size = Number(values.size);
const mark = 'gpl-' + Number(values.run).toString(16).padStart(8, '0') + '-';
const letters = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_.';
const filler = letters.repeat(Math.ceil(size / 64) + 1);

let seq = 0;
let done = 0; // all clients have every message up to this number

const acks = new Socket({ fd: 3, readable: true, writable: false });
acks.on('error', () => {}); // started by hand, without the pipe
let rest = Buffer.alloc(0);
acks.on('data', (chunk) => {
  rest = Buffer.concat([rest, chunk]);
  for (; rest.length >= 8; rest = rest.subarray(8)) done = Math.max(done, Number(rest.readBigUInt64LE()));
});

function payload() {
  seq++;
  const head = mark + seq.toString(16).padStart(16, '0') + '-' + process.hrtime.bigint().toString(16).padStart(16, '0') + '-';
  const at = seq % 64;
  return head + filler.slice(at, at + size - head.length);
}

const say = (reply) => process.stdout.write(JSON.stringify(reply) + '\n');
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const turn = () => new Promise((done) => setImmediate(done));

/** Serves on a free port and publishes as asked until standard input ends. */
export function main(server, publish) {
  server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, async () => {
    say({ addr: '127.0.0.1:' + server.address().port });
    for await (const line of createInterface({ input: process.stdin })) {
      const cmd = JSON.parse(line);
      const first = seq + 1;
      switch (cmd.do) {
        case 'paced': {
          const start = performance.now();
          for (let i = 1; i <= cmd.count; i++) {
            await pause(Math.max(0, start + (i * cmd.every_ns) / 1e6 - performance.now()));
            publish(payload());
          }
          say({ first, last: seq });
          break;
        }
        case 'saturated': {
          const end = performance.now() + cmd.for_ns / 1e6;
          while (performance.now() < end) {
            if (cmd.window && seq - done >= cmd.window) {
              await turn();
              continue;
            }
            publish(payload());
            if (!cmd.greedy) await turn();
          }
          say({ first, last: seq });
          break;
        }
        case 'gc':
          globalThis.gc?.();
        // falls through
        case 'stats': {
          const { user, system } = process.cpuUsage();
          say({ cpu_ns: (user + system) * 1000, rss: process.memoryUsage.rss() });
          break;
        }
        default:
          say({ error: 'no command ' + cmd.do });
      }
    }
    process.exit(0);
  });
}
