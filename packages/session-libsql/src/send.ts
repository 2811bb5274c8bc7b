import type { BatchStatement } from '@coatcheck/session-core/sql';
import type { LibsqlClient } from './options.ts';

/** Sends statements with a client. A single one is no batch, because a batch takes the write lock. */
export async function sendWith(client: LibsqlClient, statements: readonly BatchStatement[]): Promise<unknown[][]> {
  const sent = statements.map(({ sql, parameters }) => ({ sql, args: [...parameters] }));
  const answers = sent.length === 1 ? [await client.execute(sent[0]!)] : await client.batch(sent, 'write');
  return answers.map(({ rows }) => rows);
}
