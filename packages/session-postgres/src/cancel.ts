import type { Duplex } from 'node:stream';
import { pause } from '@coatcheck/session-core/driver';
import type { Client, PoolClient } from 'pg';

// The parts of pg that send a request to cancel. They have no types. pg's own `cancel` does not use TLS.
interface Internals {
  processID: number;
  secretKey: number;
  connection: {
    stream: Duplex;
    startup(): void;
    cancel(processId: number, secretKey: number): void;
  };
}

/** How long to wait for PostgreSQL to take the request, in milliseconds. */
const CANCEL_MS = 1000;

/**
 * Cancels the statement that a client has sent. Otherwise, a write that waits for a lock would be stored long after its caller was told that
 * it failed. PostgreSQL takes the request on a connection of its own. Resolves when PostgreSQL has closed that connection, or does not
 * answer; never rejects.
 *
 * @param canceler a new client with the same configuration, which has not connected.
 */
export async function cancelStatement(canceler: Client, client: PoolClient): Promise<void> {
  const { connection } = canceler as unknown as Internals;
  const { processID, secretKey } = client as unknown as Internals;
  // It connects like any client, with TLS if that is configured. Then it sends the request in place of the first message of a session.
  connection.startup = () => connection.cancel(processID, secretKey);
  canceler.on('error', () => undefined);
  // PostgreSQL closes the connection without an answer, so connecting always fails.
  const ended = canceler.connect().catch(() => undefined);
  await Promise.race([ended, pause(CANCEL_MS, { idle: true })]);
  connection.stream.destroy();
}

/** Closes the connection of a client of a pool at once. A server that is gone would never confirm a polite end. */
export function discard(client: PoolClient): void {
  client.release(true);
  (client as unknown as Internals).connection.stream.destroy();
}
