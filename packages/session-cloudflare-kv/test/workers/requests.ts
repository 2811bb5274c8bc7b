import { createSessions, type Session } from '@coatcheck/session-core';
import cloudflareKv, { type KvNamespace } from '@coatcheck/session-cloudflare-kv/runtime';

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * How KV behaves; the tests change it: its delay, the error for all operations, the error for writes, and how many writes are refused as too
 * early.
 */
const kvIs = { slowMs: 0, tooSoon: 0, failing: '', refusing: '', operations: { get: 0, put: 0, delete: 0 } };

/** The binding with the delays and errors above. Each request does its own I/O. */
function slow(kv: KvNamespace): KvNamespace {
  const before = async (operation: 'get' | 'put' | 'delete'): Promise<void> => {
    kvIs.operations[operation]++;
    if (kvIs.slowMs > 0) await wait(kvIs.slowMs);
    const name = operation.toUpperCase();
    if (kvIs.failing) throw new Error(`KV ${name} failed: ${kvIs.failing}`);
    if (operation !== 'get' && kvIs.refusing) throw new Error(`KV ${name} failed: ${kvIs.refusing}`);
    if (operation !== 'get' && kvIs.tooSoon > 0 && kvIs.tooSoon-- > 0)
      throw new Error(`KV ${name} failed: 429 Too Many Requests`);
  };
  return {
    get: async (key, options) => (await before('get'), kv.get(key, options)),
    put: async (key, value, options) => (await before('put'), kv.put(key, value, options)),
    delete: async (key) => (await before('delete'), kv.delete(key)),
  };
}

// All requests share it, as in a site.
let onlyDriver: ReturnType<typeof cloudflareKv> | undefined;

// At the top level of a module, a Worker cannot wait for I/O, and has no random values.
const shared = createSessions({ driver: cloudflareKv() });

export default {
  async fetch(request: Request, env: { SESSION: KvNamespace }): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    const query = Object.fromEntries(searchParams);
    const driver = (onlyDriver ??= cloudflareKv({ client: slow(env.SESSION), timeout: 3000 }));
    const sessions = createSessions({ driver });
    try {
      return await routes[pathname]!(query, { request, driver, session: sessions.open(request) });
    } catch (error) {
      const { name, message, code, cause } = error as Error & { code?: string };
      return Response.json({ name, message, code, cause: (cause as Error | undefined)?.message }, { status: 500 });
    }
  },
};

interface Context {
  request: Request;
  driver: ReturnType<typeof cloudflareKv>;
  session: Session;
}

const routes: Record<string, (query: Record<string, string>, context: Context) => Promise<Response>> = {
  async '/kv'({ slowMs = '0', tooSoon = '0', failing = '', refusing = '' }) {
    const before = kvIs.operations;
    const operations = { get: 0, put: 0, delete: 0 };
    Object.assign(kvIs, { slowMs: Number(slowMs), tooSoon: Number(tooSoon), failing, refusing, operations });
    return Response.json(before);
  },

  async '/shared'(_query, { request }) {
    return Response.json(Object.fromEntries(await shared.open(request).entries()));
  },

  async '/all'(_query, { session }) {
    return Response.json(Object.fromEntries(await session.entries()));
  },

  async '/set'({ key, value, size }, { session }) {
    session.set(key!, size ? 'é'.repeat(Number(size)) : value);
    return answer(await session.commit());
  },

  async '/look-and-set'({ key, value }, { session }) {
    await session.keys();
    await wait(Math.random() * 100);
    session.set(key!, value);
    return answer(await session.commit());
  },

  async '/count'(_query, { session }) {
    const count = await session.update('count', (now = 0) => Number(now) + 1);
    return answer(await session.commit(), String(count));
  },

  async '/regenerate'(_query, { session }) {
    await session.regenerate();
    return answer(await session.commit());
  },

  async '/destroy'(_query, { session }) {
    session.destroy();
    return answer(await session.commit());
  },

  // As in Astro, the response does not wait for the removal.
  async '/remove'({ id }, { driver }) {
    driver.removeItem(id!).catch(() => undefined);
    return new Response('signed out');
  },

  async '/item'({ id }, { driver }) {
    return Response.json(await driver.getItem(id!));
  },

  async '/save'({ id }, { driver, request }) {
    await driver.setItem(id!, await request.text());
    return new Response('saved');
  },

  // The request ends during its work, like a request that is canceled.
  async '/save-and-go'({ id }, { driver, request }) {
    driver.setItem(id!, await request.text()).catch(() => undefined);
    return new Response('gone');
  },
};

function answer(setCookie: string | undefined, text = 'ok'): Response {
  return new Response(text, { headers: setCookie ? { 'set-cookie': setCookie } : {} });
}
