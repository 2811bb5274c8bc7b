import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from 'vitest';
import { startProxy, type FaultProxy } from './support/fault-proxy.ts';

/** A server that echoes what it receives, and records it. */
async function startEcho() {
  let heard = '';
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('data', (data) => {
      heard += String(data);
      socket.write(data);
    });
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    heard: () => heard,
    drop: () => sockets.forEach((socket) => socket.destroy()),
    async close() {
      server.close();
      for (const socket of sockets) socket.destroy();
      await once(server, 'close');
    },
  };
}

/** A client that sends data, and records the replies and how the connection ended. */
async function open(port: number) {
  const socket = connect(port, '127.0.0.1');
  let got = '';
  let pieces = 0;
  let ended: string | undefined;
  socket.setEncoding('utf8').on('data', (text: string) => {
    got += text;
    pieces += 1;
  });
  socket.on('error', (error: NodeJS.ErrnoException) => (ended = error.code));
  socket.on('close', () => (ended ??= 'closed'));
  await Promise.race([once(socket, 'connect'), once(socket, 'close')]).catch(() => {});
  return {
    say: (text: string) => void socket.write(text),
    got: () => got,
    pieces: () => pieces,
    ended: () => ended,
    leave: () => socket.destroy(),
  };
}

const soon = (check: () => void) => vi.waitFor(check, { timeout: 60_000, interval: 5 });

let echo: Awaited<ReturnType<typeof startEcho>>;
let proxy: FaultProxy;

beforeEach(async () => {
  echo = await startEcho();
  proxy = await startProxy({ target: echo.port });
});

afterEach(async () => {
  await proxy[Symbol.asyncDispose]();
  await echo.close();
});

test('forwards everything and counts it', async () => {
  const one = await open(proxy.port);
  const two = await open(proxy.port);
  one.say('hello');
  two.say('you');
  await soon(() => expect([one.got(), two.got()]).toEqual(['hello', 'you']));
  expect(proxy).toMatchObject({ connections: 2, open: 2, bytesFromClients: 8, bytesToClients: 8 });
  one.leave();
  await soon(() => expect(proxy.open).toBe(1));
});

test('delays replies, and keeps their order', async () => {
  const client = await open(proxy.port);
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  onTestFinished(() => void vi.useRealTimers());
  const delays = [80, 1, 1];
  await proxy.delay(() => delays.shift()!);
  for (const left of [2, 1, 0]) {
    client.say('abc'[2 - left]!);
    while (delays.length > left) await turn();
  }
  vi.advanceTimersByTime(79);
  expect(proxy.bytesToClients).toBe(0);
  vi.advanceTimersByTime(1);
  expect(proxy.bytesToClients).toBe(3);
  await expect.poll(() => client.got()).toBe('abc');
});

test('silence: open and new connections get no replies, and requests are lost', async () => {
  const before = await open(proxy.port);
  before.say('before');
  await soon(() => expect(before.got()).toBe('before'));
  await proxy.silence();
  const during = await open(proxy.port);
  before.say('lost');
  during.say('lost');
  await soon(() => expect(proxy.bytesFromClients).toBe(14));
  expect([before.ended(), during.ended()]).toEqual([undefined, undefined]);

  await proxy.pass();
  await soon(() => expect([before.ended(), during.ended()]).toEqual(['ECONNRESET', 'ECONNRESET']));
  const after = await open(proxy.port);
  after.say('after');
  await soon(() => expect(after.got()).toBe('after'));
  expect(echo.heard()).toBe('beforeafter');
});

test('silence also drops delayed replies', async () => {
  const client = await open(proxy.port);
  await proxy.delay(60_000);
  client.say('late');
  await soon(() => expect(echo.heard()).toBe('late'));
  await proxy.silence();
  await proxy.pass();
  await soon(() => expect(client.ended()).toBe('ECONNRESET'));
  expect(client.got()).toBe('');
});

test('hold: nothing is forwarded, and nothing is lost', async () => {
  const client = await open(proxy.port);
  client.say('one');
  await soon(() => expect(client.got()).toBe('one'));
  await proxy.hold();
  client.say('two');
  const late = await open(proxy.port);
  late.say('three');
  echo.drop();
  expect([client.ended(), echo.heard()]).toEqual([undefined, 'one']);
  await proxy.pass();
  await soon(() => expect(late.got()).toBe('three'));
  await soon(() => expect(client.ended()).toBeDefined());
});

test('cut: closes in the middle of a reply', async () => {
  const client = await open(proxy.port);
  client.say('12345');
  await soon(() => expect(client.got()).toBe('12345'));
  await proxy.cut(3);
  client.say('67890');
  await soon(() => expect(client.ended()).toBe('closed'));
  expect(client.got()).toBe('12345678');
});

test('trickle: replies arrive one byte at a time, and complete', async () => {
  const client = await open(proxy.port);
  await proxy.trickle();
  client.say('in many pieces');
  await soon(() => expect(client.got()).toBe('in many pieces'));
  expect(client.pieces()).toBe(14);
  client.say('cut short');
  await proxy.pass();
  await soon(() => expect(client.got()).toBe('in many piecescut short'));
});

test('reset: open and new connections are reset', async () => {
  const before = await open(proxy.port);
  before.say('hello');
  await soon(() => expect(before.got()).toBe('hello'));
  await proxy.reset();
  await soon(() => expect(before.ended()).toBe('ECONNRESET'));
  const during = await open(proxy.port);
  await soon(() => expect(during.ended()).toBe('ECONNRESET'));
});

test('refuse: connections are refused until it listens on the same port again', async () => {
  const before = await open(proxy.port);
  before.say('hello');
  await soon(() => expect(before.got()).toBe('hello'));
  await proxy.refuse();
  await soon(() => expect(before.ended()).toBe('ECONNRESET'));
  expect((await open(proxy.port)).ended()).toBe('ECONNREFUSED');
  await proxy.pass();
  const after = await open(proxy.port);
  after.say('again');
  await soon(() => expect(after.got()).toBe('again'));
});

test('if the target closes its connections, clients are disconnected, except under silence', async () => {
  const client = await open(proxy.port);
  client.say('hello');
  await soon(() => expect(client.got()).toBe('hello'));
  await proxy.silence();
  const kept = await open(proxy.port);
  await proxy.silence();
  echo.drop();
  kept.say('anyone?');
  await soon(() => expect(proxy.bytesFromClients).toBe(12));
  expect([client.ended(), kept.ended()]).toEqual([undefined, undefined]);

  await proxy.pass();
  const next = await open(proxy.port);
  next.say('next');
  await soon(() => expect(next.got()).toBe('next'));
  echo.drop();
  await soon(() => expect(next.ended()).toBeDefined());
});
