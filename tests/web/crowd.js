// A crowd in a process of its own: people who listen, and people who click, each once. Says how they were answered.
// Usage: node crowd.js '{"port":…,"product":…,"token":…,"secret":…,"listeners":…,"clicks":…,"connections":…}'
// It clicks at the time that its parent sends.
import { createHmac } from 'node:crypto';
import { connect } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';

const { port, product, token, secret, listeners, clicks, connections } = JSON.parse(process.argv[2]);

/** A token like one that the server has made, of another user. */
const [head, claims] = token.split('.');
const known = JSON.parse(Buffer.from(claims, 'base64url').toString());
function tokenOf(user) {
  const signed = `${head}.${Buffer.from(JSON.stringify({ ...known, sub: String(user) })).toString('base64url')}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

/** Resolves when its first event is there. */
function listen() {
  return new Promise((heard, failed) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(`GET /events?products=${product} HTTP/1.1\r\nHost: a\r\n\r\n`));
    socket.once('data', heard);
    socket.on('data', () => {});
    socket.on('error', failed);
  });
}

const answers = {};

/** One connection: a click after the other. */
function click(requests) {
  return new Promise((ended, failed) => {
    let read = '';
    let sent = 0;
    const socket = connect(port, '127.0.0.1', () => socket.write(requests[0]));
    socket.setEncoding('latin1');
    socket.on('error', failed);
    socket.on('data', (data) => {
      read += data;
      const end = read.indexOf('\r\n\r\n');
      if (end < 0) return;
      const length = Number(/content-length: (\d+)/i.exec(read.slice(0, end))?.[1] ?? 0);
      if (read.length < end + 4 + length) return;
      const code = /"code":"(\w+)"/.exec(read)?.[1] ?? read.slice(9, 12);
      answers[code] = (answers[code] ?? 0) + 1;
      read = '';
      sent += 1;
      if (sent < requests.length) return void socket.write(requests[sent]);
      socket.end();
      ended();
    });
  });
}

const all = Array.from({ length: clicks }, (_, user) => `POST /seckill/${product} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${tokenOf(1_000_000 + user)}\r\n\r\n`);
for (let done = 0; done < listeners; done += 250) await Promise.all(Array.from({ length: Math.min(250, listeners - done) }, listen));
const begins = new Promise((resolve) => process.once('message', resolve));
process.send?.('listening');
await pause(Math.max(0, Number(await begins) - Date.now()));
const share = Math.ceil(clicks / connections);
await Promise.all(Array.from({ length: connections }, (_, place) => click(all.slice(place * share, (place + 1) * share))));
process.send?.(answers);
// Who listens goes on for a moment: they are told that nothing is left.
await pause(1500);
process.exit(0);
