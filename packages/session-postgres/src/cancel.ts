import { once, type EventEmitter } from 'node:events';
import type { Client, PoolClient } from 'pg';

// The parts of pg that send a request to cancel. They have no types. pg's own `cancel` does not use TLS.
interface Internals {
  host: string;
  port: number;
  ssl: unknown;
  processID: number;
  secretKey: number;
  connection: EventEmitter & {
    connect(port: number | string, host?: string): void;
    requestSsl(): void;
    cancel(processId: number, secretKey: number): void;
  };
}

/**
 * Cancels the statement that a client has sent. Otherwise, a write that waits for a lock would be stored long after its caller was told that
 * it failed. PostgreSQL takes the request on a connection of its own. Resolves when PostgreSQL has closed that connection; never rejects.
 *
 * @param canceler a new client with the same configuration, which has not connected.
 */
export async function cancelStatement(canceler: Client, client: PoolClient): Promise<void> {
  const { connection, host, port, ssl } = canceler as unknown as Internals;
  const { processID, secretKey } = client as unknown as Internals;
  const send = (): void => connection.cancel(processID, secretKey);
  connection.on('connect', () => (ssl ? connection.requestSsl() : send()));
  connection.on('sslconnect', send);
  if (host.startsWith('/')) connection.connect(`${host}/.s.PGSQL.${port}`);
  else connection.connect(port, host);
  await once(connection, 'end').catch(() => undefined);
}
