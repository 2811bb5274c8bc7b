import { Socket } from 'node:net';
import { pause } from '@coatcheck/session-core/driver';
import pg, { type Client as PgClient, type Pool as PgPool, type PoolClient, type PoolConfig } from 'pg';
import { cancelStatement, discard } from './cancel.ts';
import { queryOver, takeInTime, type Connection } from './connection.ts';
import { allBusy, isAnswer } from './errors.ts';

const { Client, Pool } = pg;

/** How long a connection stays open without a statement, in milliseconds. */
const IDLE_MS = 60_000;
/** How long a canceled statement may take to end, in milliseconds. After it, its server counts as gone. */
const GONE_MS = 1000;

/**
 * Opens a pool of connections. It connects when a statement needs it.
 *
 * @param config where to connect, in the form of pg's options.
 */
export function openPool(config: PoolConfig & { max: number }, timeoutMs: number): Connection {
  const { host, port } = new Client(config);

  // The pool's own time limit for connecting would keep the process alive. This one does not, and neither does the socket.
  function QuietClient(): PgClient {
    return new Client({ ...config, keepAlive: true, stream: quietSocket, connectionTimeoutMillis: timeoutMs });
  }

  /** The connections that were opened since the last `reconnect`. Others are closed when a statement gets them. */
  let current = new WeakSet<PoolClient>();
  let busy = 0;

  const pool: PgPool = new Pool({
    ...config,
    Client: QuietClient as unknown as new () => PgClient,
    idleTimeoutMillis: IDLE_MS,
    // An idle connection does not keep the process alive. An operation does, because its deadline is a timer.
    allowExitOnIdle: true,
  });
  // A connection that breaks also fails its statement, if it has one. Without a listener, the process would end.
  pool.on('error', () => undefined);
  pool.on('connect', (client) => {
    current.add(client);
    client.on('error', () => undefined);
  });

  const connect = async (signal: AbortSignal): Promise<PoolClient> => {
    for (;;) {
      signal.throwIfAborted();
      const client = await takeInTime(() => pool.connect(), signal, noAnswer);
      if (current.has(client)) return client;
      discard(client);
    }
  };

  /** The error for a statement that got no connection before its deadline. */
  const noAnswer = (): Error => (busy >= config.max ? allBusy(config.max) : new Error('no answer'));

  const reconnect = (): void => {
    current = new WeakSet();
  };

  /** Ends a statement whose caller was told that it failed. */
  const abandon = async (client: PoolClient, statement: Promise<unknown>): Promise<void> => {
    const ended = Promise.race([Promise.allSettled([statement]), pause(GONE_MS, { idle: true })]);
    await cancelStatement(new Client(config), client);
    // A server that does not answer is gone, and so are the other connections.
    if (!(await ended)) reconnect();
    discard(client);
  };

  const send = async (client: PoolClient, text: string, values: string[], signal: AbortSignal) => {
    busy += 1;
    const statement = client.query(text, values);
    const onAbort = (): void => void abandon(client, statement).finally(() => (busy -= 1));
    signal.addEventListener('abort', onAbort);
    const release = (isUsable: boolean): void => {
      signal.removeEventListener('abort', onAbort);
      if (signal.aborted) return;
      busy -= 1;
      if (isUsable) client.release();
      else discard(client);
    };
    try {
      const result = await statement;
      release(true);
      return result;
    } catch (error) {
      release(isAnswer(error));
      throw error;
    }
  };

  const query = queryOver<PoolClient>({ address: `${host}:${port}`, connect, send, reconnect }, timeoutMs);
  return { query, close: () => pool.end() };
}

/** A socket that does not keep the process alive while it connects. */
function quietSocket(): Socket {
  const socket = new Socket().unref();
  return socket.on('connectionAttempt', () => socket.unref());
}
