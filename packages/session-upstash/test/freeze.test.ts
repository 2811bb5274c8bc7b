import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Agent, get, type IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { afterAll, expect, it } from 'vitest';
import { redisUrl } from '@coatcheck/test-support/redis-server';
import { startUpstashBridge } from '@coatcheck/test-support/upstash-bridge';

// A server that only writes, because a read could be sent again.
const SERVER = `
import { createServer } from 'node:http';
import { createSessions } from ${JSON.stringify(import.meta.resolve('@coatcheck/session-core'))};
import upstash from ${JSON.stringify(import.meta.resolve('@coatcheck/session-upstash/runtime'))};

process.stdin.on('close', () => process.exit()).resume();
const sessions = createSessions({ driver: upstash() });
const server = createServer(async (request, response) => {
  const session = sessions.open('');
  session.set('value', 1);
  const outcome = await session.commit().then(() => 'stored', (error) => error.message);
  response.end(outcome);
});
server.listen(0, '127.0.0.1', () => console.log('http://127.0.0.1:' + server.address().port));
`;

const bridge = await startUpstashBridge(await redisUrl());
afterAll(() => bridge[Symbol.asyncDispose]());

const agent = new Agent({ keepAlive: true, maxSockets: 1 });
afterAll(() => agent.destroy());

/** Sends a request on a keep-alive connection. `sent` resolves when the operating system has the request. */
function visit(url: string): { sent: Promise<unknown>; answer: Promise<string> } {
  const request = get(url, { agent });
  const answer = once(request, 'response').then(([response]) => text(response as IncomingMessage));
  const sent = once(request, 'socket').then(([socket]) =>
    expect.poll(() => request.writableFinished && (socket as Socket).writableLength, { interval: 1 }).toBe(0),
  );
  return { sent, answer };
}

it.each([
  ['this Node', ''],
  ['Node 22', `globalThis.fetch = (await import(${JSON.stringify(import.meta.resolve('undici'))})).fetch;`],
])(
  'a process that was frozen while its connections were closed loses no writes, with the fetch of %s',
  async (_, setup) => {
    const server = spawn(process.execPath, ['--input-type=module', '--eval', SERVER + setup], {
      env: { UPSTASH_REDIS_REST_URL: bridge.url, UPSTASH_REDIS_REST_TOKEN: bridge.token },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    try {
      const [url] = (await once(createInterface(server.stdout), 'line')) as [string];
      for (let round = 0; round < 30; round++) {
        expect(await visit(url).answer).toBe('stored');
        expect(bridge.connections).toBeGreaterThan(0);
        server.kill('SIGSTOP');
        // When the process continues, it first receives the request, and then learns that the connection to Upstash is closed.
        const { sent, answer } = visit(url);
        await sent;
        bridge.closeIdleConnections();
        await expect.poll(() => bridge.connections, { interval: 1 }).toBe(0);
        server.kill('SIGCONT');
        expect(await answer).toBe('stored');
      }
    } finally {
      server.kill('SIGKILL');
      await once(server, 'close');
    }
  },
  60_000,
);
