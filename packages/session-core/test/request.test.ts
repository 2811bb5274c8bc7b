import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { beforeAll, describe, expect, it } from 'vitest';
import { currentRequest, type RequestMemory } from '../src/astro/request.ts';

// Requests are told apart from the first call on.
beforeAll(() => void currentRequest());

type Listener = (request: IncomingMessage, response: ServerResponse) => unknown;

/** Answers requests with a listener, for as long as a test asks. */
async function serving<Result>(listener: Listener, ask: (url: string) => Promise<Result>): Promise<Result> {
  const server = createServer((request, response) => void listener(request, response)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    return await ask(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

describe('the current request', () => {
  it('is nothing outside of a server', () => {
    expect(currentRequest()).toBeUndefined();
  });

  it('is the same wherever one request gets to, and another one in the next', async () => {
    const seen: (RequestMemory | undefined)[] = [];
    await serving(
      async (_request, response) => {
        seen.push(currentRequest());
        await new Promise(setImmediate);
        seen.push(currentRequest());
        response.end();
      },
      async (url) => {
        for (let time = 0; time < 2; time++) await (await fetch(url)).text();
      },
    );
    const [first, again, second] = seen;
    expect(first).toBeDefined();
    expect(again).toBe(first);
    expect(second).toBeDefined();
    expect(second).not.toBe(first);
  });

  it('belongs to each of two requests at once', async () => {
    const seen = new Set<RequestMemory | undefined>();
    let arrived = 0;
    const both = Promise.withResolvers<void>();
    await serving(
      async (_request, response) => {
        if (++arrived === 2) both.resolve();
        await both.promise;
        seen.add(currentRequest());
        response.end();
      },
      async (url) => Promise.all([fetch(url), fetch(url)].map(async (answer) => (await answer).text())),
    );
    expect(seen.size).toBe(2);
    expect(seen.has(undefined)).toBe(false);
  });

  it('can be failed with an empty 500, unless its answer has begun', async () => {
    const statusOf = (listener: Listener) =>
      serving(listener, async (url) => {
        const answer = await fetch(url);
        return [answer.status, await answer.text()];
      });
    expect(await statusOf(() => currentRequest()!.fail())).toEqual([500, '']);
    const begun = await statusOf((_request, response) => {
      response.writeHead(200);
      currentRequest()!.fail();
      response.end('whole');
    });
    expect(begun).toEqual([200, 'whole']);
  });

  it('calls back when its answer has been sent, also when that was before', async () => {
    const order: string[] = [];
    const late = Promise.withResolvers<void>();
    await serving(
      (_request, response) => {
        const request = currentRequest()!;
        request.whenAnswered(() => {
          order.push('answered');
          request.whenAnswered(() => {
            order.push('asked afterwards');
            late.resolve();
          });
        });
        order.push('answering');
        response.end('whole');
      },
      async (url) => {
        await (await fetch(url)).text();
        await late.promise;
      },
    );
    expect(order).toEqual(['answering', 'answered', 'asked afterwards']);
  });
});
