import { retry, type StoreCall } from '@coatcheck/session-core/driver';
import type { Failure } from '@coatcheck/session-core/sql';
import { explain, interrupted, noConnection, unreachable } from './errors.ts';
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
  /** Called when the connections lead to a server that accepts no writes. */
  reconnect(): void;
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
      if (failure?.elsewhere) reconnect();
      if (failure) return failure;
      if (wasSent && !isRepeatable) return { error: interrupted(error) };
      return { error: unreachable(address, error), transient: true };
    };
    return retry(attempt, { signal, forMs: timeoutMs / 2, pauseMs: RETRY_MS, judge });
  };
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
