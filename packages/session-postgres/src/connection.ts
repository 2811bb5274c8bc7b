import { pause, type StoreCall } from '@coatcheck/session-core/driver';
import type { Pool, PoolClient, PoolConfig } from 'pg';
import { cancelStatement, discard } from './cancel.ts';
import { allBusy, explain, interrupted, unreachable } from './errors.ts';
import type { PostgresClient, PostgresJsClient } from './options.ts';

/** How a statement is sent. */
export interface Sending {
  call: StoreCall;
  /** Whether it may be sent again after the connection dropped before the answer. */
  isRepeatable?: boolean;
}

/** Connections to one database. */
export interface Connection {
  /**
   * Sends a statement whose rows have one column. Resolves to that of the first row; to null if there is no row.
   *
   * @throws an error with the SQLSTATE as its `code` if PostgreSQL answered with an error for which there is no rule.
   */
  query(text: string, values: string[], sending: Sending): Promise<string | null>;
  /** Closes all connections. Absent for a client of the app. */
  close?(): Promise<void>;
}

/** The longest pause before a statement is sent again, in milliseconds. */
const RETRY_MS = 50;
/** How long a connection stays open without a statement, in milliseconds. */
const IDLE_MS = 60_000;
/** How long a canceled statement may take to end, in milliseconds. After it, its server counts as gone. */
const GONE_MS = 1000;

/** A way to send statements. */
interface Link<Client> {
  /** Where PostgreSQL is, for errors. */
  address: string;
  /** Gets a connection, and sends no statement. Rejects when the signal aborts. */
  connect(signal: AbortSignal): Promise<Client>;
  send(
    client: Client,
    text: string,
    values: string[],
    signal: AbortSignal,
  ): PromiseLike<{ rows: unknown[] } | unknown[]>;
  /** Called when the connections lead to a server that accepts no writes. */
  reconnect(): void;
}

/** Sends statements over a link. Sends them again for up to half of the timeout if that is safe. Explains errors. */
function queryOver<Client>(
  { address, connect, send, reconnect }: Link<Client>,
  timeoutMs: number,
): Connection['query'] {
  return async (text, values, { call: { signal }, isRepeatable = false }) => {
    // Stop before the deadline: an error says more than a timeout does.
    const retryUntil = performance.now() + timeoutMs / 2;
    let reason: unknown;
    for (;;) {
      if (signal.aborted) throw reason ? unreachable(address, reason) : signal.reason;
      let client: Client | undefined;
      try {
        client = await connect(signal);
        const result = await send(client, text, values, signal);
        const [row] = Array.isArray(result) ? result : result.rows;
        // An object or an array: clients have options for the form of rows, and for the names of columns.
        return row === undefined ? null : (Object.values(row as Record<string, string | null>)[0] ?? null);
      } catch (error) {
        const failure = explain(error, client !== undefined);
        if (failure?.elsewhere) reconnect();
        if (failure && !failure.transient) throw failure.error;
        if (!failure && client && !isRepeatable) throw interrupted(error);
        // Of an attempt that the deadline has ended, the attempt before it says more.
        reason = signal.aborted ? (reason ?? error) : error;
        if (performance.now() > retryUntil) throw failure?.error ?? unreachable(address, reason);
      }
      // A random time, because statements that could not be serialized would meet again.
      await pause(Math.random() * RETRY_MS, { signal });
    }
  };
}

/**
 * Opens a pool of connections. It connects when a statement needs it.
 *
 * @param config where to connect, in the form of pg's options.
 */
export function openPool(
  { Pool, Client }: Pick<typeof import('pg'), 'Pool' | 'Client'>,
  config: PoolConfig & { max: number },
  timeoutMs: number,
): Connection {
  const { host, port } = new Client(config);
  /** The connections that were opened since the last `reconnect`. Others are closed when a statement gets them. */
  let current = new WeakSet<PoolClient>();
  let busy = 0;

  const pool: Pool = new Pool({
    ...config,
    // A little less, so that the caller learns that there was no connection.
    connectionTimeoutMillis: Math.ceil(timeoutMs * 0.9),
    idleTimeoutMillis: IDLE_MS,
    // An idle connection does not keep the process alive. An operation does, because its deadline is a timer.
    allowExitOnIdle: true,
    keepAlive: true,
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
      const client = await connection(signal);
      if (current.has(client)) return client;
      discard(client);
    }
  };

  const connection = (signal: AbortSignal): Promise<PoolClient> =>
    new Promise((resolve, reject) => {
      const failed = (error: unknown): void => reject(busy >= config.max ? allBusy(config.max) : error);
      const onAbort = (): void => failed(new Error('no answer'));
      signal.addEventListener('abort', onAbort);
      pool
        .connect()
        .then((client) => (signal.aborted ? client.release() : resolve(client)), failed)
        .finally(() => signal.removeEventListener('abort', onAbort));
    });

  const reconnect = (): void => {
    current = new WeakSet();
  };

  /** Ends a statement whose caller was told that it failed. */
  const abandon = async (client: PoolClient, statement: Promise<unknown>): Promise<void> => {
    const ended = statement.then(
      () => true,
      () => true,
    );
    const isGone = pause(GONE_MS, { idle: true }).then(() => false);
    await cancelStatement(new Client(config), client);
    // A server that does not answer is gone, and so are the other connections.
    if (!(await Promise.race([ended, isGone]))) reconnect();
    discard(client);
  };

  const send = async (client: PoolClient, text: string, values: string[], signal: AbortSignal) => {
    busy += 1;
    const statement = client.query(text, values);
    const onAbort = (): void => void abandon(client, statement).finally(() => (busy -= 1));
    signal.addEventListener('abort', onAbort);
    const release = (how: (client: PoolClient) => void): void => {
      signal.removeEventListener('abort', onAbort);
      if (signal.aborted) return;
      busy -= 1;
      how(client);
    };
    try {
      const result = await statement;
      release(() => client.release());
      return result;
    } catch (error) {
      release(explain(error, true) ? () => client.release() : discard);
      throw error;
    }
  };

  const query = queryOver<PoolClient>({ address: `${host}:${port}`, connect, send, reconnect }, timeoutMs);
  return { query, close: () => pool.end() };
}

/** Sends statements with a client of the app. */
export function useClient(client: PostgresClient | PostgresJsClient, timeoutMs: number): Connection {
  const link: Link<PostgresClient | PostgresJsClient> = {
    address: 'the address of `client`',
    connect: async () => client,
    // Neon's client has both methods. Its `unsafe` does something else.
    send: (it, text, values) => ('query' in it ? it.query(text, values) : it.unsafe(text, values)),
    reconnect: () => undefined,
  };
  return { query: queryOver(link, timeoutMs) };
}
