import { createError } from '@coatcheck/session-core/driver';
import { DRIVER } from './errors.ts';
import { isDatabase, type D1Client } from './options.ts';

/**
 * The D1 database with this binding in the environment of the running Worker.
 *
 * @throws {SessionDriverError} `configuration` if there is no such binding, or if this is not a Worker.
 */
export async function findDatabase(name = 'DB'): Promise<D1Client> {
  const binding = (await workerEnvironment(name))[name];
  if (isDatabase(binding)) return binding;
  const problem = binding === undefined ? 'has no' : 'has a variable that is not a';
  throw createError(
    DRIVER,
    'configuration',
    `The Worker's environment ${problem} D1 database: \`${name}\`. Run\n\n` +
      '  npx wrangler d1 create sessions\n\n' +
      'and add this to wrangler.jsonc, with the id that the command prints:\n\n' +
      `  "d1_databases": [{ "binding": "${name}", "database_name": "sessions", "database_id": "<id>" }]\n\n` +
      'To use a binding with another name, set the option `database` to that name.',
  );
}

async function workerEnvironment(name: string): Promise<Record<string, unknown>> {
  try {
    return (await import('cloudflare:workers')).env;
  } catch (cause) {
    throw createError(
      DRIVER,
      'configuration',
      `This is not a Cloudflare Worker: the D1 database \`${name}\` cannot be found without the module \`cloudflare:workers\`. Use ` +
        '`@astrojs/cloudflare`, or pass the database itself to "@coatcheck/session-d1/runtime" as `client`.',
      { cause },
    );
  }
}
