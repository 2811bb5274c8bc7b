import { check, createSessions, type Session } from '@coatcheck/session-core';
import type { Change, SessionStore } from '@coatcheck/session-core/driver';
import durableObjects, { type SessionNamespace } from '@coatcheck/session-durable-objects/runtime';
import { durableObjectsStore } from '../../src/store.ts';
import type { InspectedSession } from './inspected-session.ts';

export { InspectedSession } from './inspected-session.ts';

interface Env {
  SESSIONS: SessionNamespace;
}

/**
 * What happens to the next calls; the tests change it. `throws`: they fail with these properties, before or after they were executed.
 * `hangs`: they are never answered. `answers`: they get this answer.
 */
interface Fault {
  throws?: { message: string; retryable?: boolean; overloaded?: boolean; remote?: boolean };
  executed?: boolean;
  hangs?: boolean;
  answers?: unknown;
  /** How many calls; after them, all is well. */
  times: number;
}

let fault: Fault = { times: 0 };
/** How often an object was called, and with which options of `get`. */
let calls: unknown[] = [];
/** The keys that were used since the last count, in order. */
let keys = new Set<string>();
/** The key that was used last. */
let lastKey = '';

/** The binding with the faults above. */
function faulty(namespace: SessionNamespace): SessionNamespace {
  return {
    idFromName: (name) => (keys.add((lastKey = name)), namespace.idFromName(name)),
    get(id, options) {
      const stub = namespace.get(id, options) as InspectedSession;
      const operate: InspectedSession['operate'] = async (request) => {
        calls.push(options);
        if (fault.times-- <= 0) return stub.operate(request);
        if (fault.executed) await stub.operate(request);
        if (fault.hangs) return new Promise(() => {});
        if (fault.throws) throw Object.assign(new Error(fault.throws.message), fault.throws);
        return fault.answers as null;
      };
      return { operate };
    },
    jurisdiction: () => namespace,
  };
}

// All requests share them, as in a site. At the top level of a module, a Worker cannot wait for I/O.
const plain = createSessions({ driver: durableObjects() });
let drivers: Record<string, ReturnType<typeof durableObjects>> | undefined;

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    const query = Object.fromEntries(searchParams);
    drivers ??= {
      faulty: durableObjects({ client: faulty(env.SESSIONS), timeout: 3000, locationHint: 'weur' }),
      idle: durableObjects({ client: faulty(env.SESSIONS), idleTtl: 3600 }),
    };
    const driver = drivers[query['driver'] ?? 'faulty']!;
    const sessions = query['driver'] === 'plain' ? plain : createSessions({ driver });
    const session = sessions.open(request);
    const object = () => env.SESSIONS.get(env.SESSIONS.idFromName(query['key'] ?? lastKey)) as InspectedSession;
    const body = request.method === 'POST' ? revive(await request.text()) : undefined;
    try {
      return await routes[pathname]!(query, { driver, session, object, env, body });
    } catch (error) {
      const { name, message, code, cause } = error as Error & { code?: string };
      return Response.json({ name, message, code, cause: (cause as Error | undefined)?.message }, { status: 500 });
    }
  },
};

interface Context {
  driver: ReturnType<typeof durableObjects>;
  session: Session;
  object(): InspectedSession;
  env: Env;
  body: unknown;
}

/** JSON with maps as `{ map: [...] }`, and Infinity as `"Infinity"`. */
function revive(text: string): unknown {
  return JSON.parse(text, (_, value: unknown) => {
    if (value === 'Infinity') return Infinity;
    return Array.isArray((value as { map?: [] } | null)?.map) ? new Map((value as { map: [] }).map) : value;
  });
}

const routes: Record<string, (query: Record<string, string>, context: Context) => Promise<Response>> = {
  // Through `Session`.
  async '/all'(_query, { session }) {
    return Response.json(Object.fromEntries(await session.entries()));
  },
  async '/set'({ key, value, size, text = 'x', ttl }, { session }) {
    session.set(key!, size ? text.repeat(Number(size)) : value, ttl ? { ttl: Number(ttl) } : {});
    return answer(await session.commit());
  },
  async '/look-and-set'({ key, value }, { session }) {
    await session.keys();
    await scheduler.wait(Math.random() * 100);
    session.set(key!, value);
    return answer(await session.commit());
  },
  async '/count'(_query, { session }) {
    await session.update('count', (now = 0) => Number(now) + 1);
    return answer(await session.commit());
  },
  async '/regenerate'(_query, { session }) {
    await session.regenerate();
    return answer(await session.commit());
  },
  async '/destroy'(_query, { session }) {
    session.destroy();
    return answer(await session.commit());
  },
  async '/check'(_query, { driver }) {
    return Response.json(await check(driver));
  },

  // On the store, by its key.
  async '/read'({ key, idleMs }, { env }) {
    const call = { signal: new AbortController().signal, extendIdleMs: idleMs ? Number(idleMs) : undefined };
    const fields = await storeOf(env).read(key!, call);
    return Response.json(fields && Object.fromEntries(fields));
  },
  async '/patch'({ key }, { env, body }) {
    const call = { signal: new AbortController().signal };
    return Response.json(await storeOf(env).patch(key!, body as Change, call));
  },
  async '/remove'({ key, ms }, { env }) {
    const call = { signal: new AbortController().signal };
    const last = await storeOf(env).destroy(key!, Number(ms), call);
    return Response.json(last instanceof Map ? Object.fromEntries(last) : last);
  },

  // Past the driver, in an object.
  async '/contents'(_query, { object }) {
    const { tables, alarm, stored } = await object().contents();
    return Response.json({ tables, alarm, stored: stored === undefined ? undefined : JSON.stringify(stored) });
  },
  async '/counts'(_query, { env }) {
    const total = { requests: calls.length, get: 0, put: 0, setAlarm: 0, deleteAll: 0 };
    for (const key of keys) {
      const counts = await (env.SESSIONS.get(env.SESSIONS.idFromName(key)) as InspectedSession).counts();
      for (const name of ['get', 'put', 'setAlarm', 'deleteAll'] as const) total[name] += counts[name];
    }
    const options = calls.at(-1);
    calls = [];
    keys = new Set([lastKey]);
    return Response.json({ ...total, options });
  },
  async '/store'(_query, { object, body }) {
    await object().store(body);
    return new Response('stored');
  },
  async '/operate'(_query, { object, body }) {
    return Response.json(await object().operate(body as never));
  },
  async '/alarm'({ at }, { object }) {
    if (at) await object().setAlarm(Number(at));
    else await object().runAlarm();
    return new Response('set');
  },
  async '/evict'(_query, { object }) {
    await Promise.resolve(object().evict()).catch(() => undefined);
    return new Response('evicted');
  },
  async '/fault'(_query, { body }) {
    fault = body as Fault;
    calls = [];
    return new Response('set');
  },
};

function storeOf({ SESSIONS }: Env): SessionStore {
  return durableObjectsStore(SESSIONS, { timeoutMs: 5000, findLegacyNamespace: async () => undefined });
}

declare const scheduler: { wait(ms: number): Promise<void> };

function answer(setCookie: string | undefined): Response {
  return new Response('ok', { headers: setCookie ? { 'set-cookie': setCookie } : {} });
}
