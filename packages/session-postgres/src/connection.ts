import { type Failure, interrupted, retry, type StoreCall } from '@coatcheck/session-core/driver';
import { explain, noConnection, unreachable } from './errors.ts';
import { DRIVER, type PostgresClient, type PostgresJsClient } from './options.ts';

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

/** A way to send statements. */
export interface Link<Client> {
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
  /** Called when the connections lead to a server that accepts no writes. Absent for a client of the app. */
  reconnect?(): void;
}

/** Sends statements over a link. Sends them again for up to half of the timeout if that is safe. Explains errors. */
export function queryOver<Client>(
  { address, connect, send, reconnect }: Link<Client>,
  timeoutMs: number,
): Connection['query'] {
  return (text, values, { call: { signal }, isRepeatable = false }) => {
    let client: Client | undefined;
    const attempt = async (): Promise<string | null> => {
      client = undefined;
      client = await connect(signal);
      const result = await send(client, text, values, signal);
      const [row] = Array.isArray(result) ? result : result.rows;
      // An object or an array: clients have options for the form of rows, and for the names of columns.
      return row === undefined ? null : (Object.values(row as Record<string, string | null>)[0] ?? null);
    };
    const judge = (error: unknown): Failure => {
      const wasSent = client !== undefined;
      const failure = explain(error, wasSent) ?? (wasSent ? undefined : noConnection(address, error));
      if (failure?.elsewhere) reconnect?.();
      if (failure) return failure;
      if (wasSent && !isRepeatable) return { error: interrupted(DRIVER, 'PostgreSQL', error) };
      return { error: unreachable(address, error, wasSent), transient: true };
    };
    return retry(attempt, { signal, forMs: timeoutMs / 2, pauseMs: RETRY_MS, judge });
  };
}

/**
 * Sends statements with a client of the app. Of a pool, it takes a connection first: the pool would send a statement that waits for one even
 * if its caller was told that it had failed.
 */
export function useClient(client: AppClient, timeoutMs: number): Connection {
  const link: Link<AppConnection> = {
    address: 'the address of `client`',
    connect: (signal) => connectionOf(client, signal),
    async send({ client: it, release }, text, values) {
      try {
        // Neon's client has both methods. Its `unsafe` does something else.
        return await ('query' in it ? it.query(text, values) : it.unsafe(text, values));
      } finally {
        release();
      }
    },
  };
  return { query: queryOver(link, timeoutMs) };
}

type AppClient = PostgresClient | PostgresJsClient;

/** A connection of the app, and how to give it back. */
interface AppConnection {
  client: AppClient;
  release(): void;
}

/** Takes a connection of a pool. Clients without a pool are their own connection. Rejects when the signal aborts. */
async function connectionOf(client: AppClient, signal: AbortSignal): Promise<AppConnection> {
  const take = takerOf(client);
  if (!take) return { client, release: () => undefined };
  const taken = await takeInTime(take, signal, () => new Error('all connections of `client` are busy'));
  // Without a listener, the process would end if the connection broke.
  const ignore = (): void => undefined;
  taken.on?.('error', ignore);
  return {
    client: taken,
    release() {
      taken.off?.('error', ignore);
      taken.release();
    },
  };
}

/** A connection that a pool has lent: of pg and Neon, or of Postgres.js. */
type Taken = AppClient & {
  release(): void;
  on?(event: 'error', listener: () => void): void;
  off?(event: 'error', listener: () => void): void;
};

/** How to take a connection. Undefined if the client has no pool. */
function takerOf(client: AppClient): (() => Promise<Taken>) | undefined {
  const { connect, reserve, totalCount } = client as {
    connect?(): Promise<Taken>;
    reserve?(): Promise<Taken>;
    totalCount?: number;
  };
  if (connect && totalCount !== undefined) return () => connect.call(client);
  return reserve && (() => reserve.call(client));
}

/** Takes a connection of a pool. Rejects when the signal aborts, and gives the connection back if it comes later. */
export function takeInTime<Client extends { release(): void }>(
  take: () => Promise<Client>,
  signal: AbortSignal,
  lateError: () => Error,
): Promise<Client> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(lateError());
    signal.addEventListener('abort', onAbort);
    take()
      .then((client) => (signal.aborted ? client.release() : resolve(client)), reject)
      .finally(() => signal.removeEventListener('abort', onAbort));
  });
}
