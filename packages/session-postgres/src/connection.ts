import { pause, type StoreCall } from '@coatcheck/session-core/driver';
import type { Pool, PoolClient, PoolConfig } from 'pg';
import { cancelStatement } from './cancel.ts';
import { explain, interrupted, unreachable } from './errors.ts';
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
   * Sends a statement whose rows have at most one column, `result`. Resolves to that of the first row; to null if there is no row.
   *
   * @throws the error of PostgreSQL as it is, if there is no rule for it.
   */
  query(text: string, values: string[], sending: Sending): Promise<string | null>;
  /** Closes all connections. Absent for a client of the app. */
  close?(): Promise<void>;
}

/** How long to wait before a statement is sent again, in milliseconds. */
const RETRY_MS = 50;
/** How long a connection stays open without a statement, in milliseconds. */
const IDLE_MS = 60_000;
/** How long to wait for PostgreSQL to take a request to cancel, in milliseconds. */
const CANCEL_MS = 1000;

/** A way to send statements. `connect` sends no statement. */
interface Link<Client> {
  /** Where PostgreSQL is, for errors. */
  address: string;
  connect(): Promise<Client>;
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
        client = await connect();
        const result = await send(client, text, values, signal);
        const [row] = Array.isArray(result) ? result : result.rows;
        return (row as { result?: string | null } | undefined)?.result ?? null;
      } catch (error) {
        const failure = explain(error);
        if (failure?.elsewhere) reconnect();
        if (failure && !failure.transient) throw failure.error;
        if (!failure && client && !isRepeatable) throw interrupted(error);
        if (performance.now() > retryUntil) throw failure?.error ?? unreachable(address, error);
        reason = error;
      }
      await pause(RETRY_MS, { signal });
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
  config: PoolConfig,
  timeoutMs: number,
): Connection {
  const { host, port } = new Client(config);
  let current: Pool | undefined;

  const open = (): Pool => {
    const pool = new Pool({
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
    pool.on('connect', (client) => client.on('error', () => undefined));
    return pool;
  };

  /** From now on, opens new connections. The old ones finish their statements. */
  const replace = (pool: Pool | undefined): void => {
    if (!pool || pool !== current) return;
    current = undefined;
    void pool.end();
  };

  const query = queryOver<PoolClient>(
    {
      address: `${host}:${port}`,
      connect: () => (current ??= open()).connect(),
      reconnect: () => replace(current),
      async send(client, text, values, signal) {
        const pool = current;
        let isReleased = false;
        const release = (isBroken: boolean): void => {
          if (!isReleased) client.release(isBroken);
          isReleased = true;
        };
        const onAbort = async (): Promise<void> => {
          // PostgreSQL did not answer, so the idle connections may be dead as well.
          replace(pool);
          await Promise.race([cancelStatement(new Client(config), client), pause(CANCEL_MS, { idle: true })]);
          release(true);
        };
        if (signal.aborted) {
          release(false);
          signal.throwIfAborted();
        }
        signal.addEventListener('abort', onAbort);
        try {
          const result = await client.query(text, values);
          release(false);
          return result;
        } catch (error) {
          release(explain(error) === undefined);
          throw error;
        } finally {
          signal.removeEventListener('abort', onAbort);
        }
      },
    },
    timeoutMs,
  );
  return { query, close: async () => current?.end() };
}

/** Sends statements with a client of the app. */
export function useClient(client: PostgresClient | PostgresJsClient, timeoutMs: number): Connection {
  const link: Link<PostgresClient | PostgresJsClient> = {
    address: 'the address of `client`',
    connect: async () => client,
    send: (it, text, values) => ('unsafe' in it ? it.unsafe(text, values) : it.query(text, values)),
    reconnect: () => undefined,
  };
  return { query: queryOver(link, timeoutMs) };
}
