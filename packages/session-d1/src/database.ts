import { missingBinding } from '@coatcheck/session-core/driver';
import { d1Database, DRIVER, type D1Client } from './options.ts';

/**
 * The D1 database with this binding in the environment of the running Worker.
 *
 * @throws {SessionDriverError} `configuration` if there is no such binding, or if this is not a Worker.
 */
export async function findDatabase(name = 'DB'): Promise<D1Client> {
  const worker = await import('cloudflare:workers').catch(() => undefined);
  const binding = worker?.env[name];
  if (d1Database.fits(binding)) return binding;
  throw missingBinding(worker?.env, name, {
    driver: DRIVER,
    kind: 'D1 database',
    option: 'database',
    setup:
      'Run\n\n  npx wrangler d1 create sessions\n\nand add this to wrangler.jsonc, with the id that the command prints:\n\n' +
      `  "d1_databases": [{ "binding": "${name}", "database_name": "sessions", "database_id": "<id>" }]`,
  });
}
