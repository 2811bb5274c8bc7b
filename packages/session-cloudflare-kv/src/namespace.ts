import { createError } from '@coatcheck/session-core/driver';
import { isNamespace, type KvNamespace } from './options.ts';

/**
 * The KV binding: `namespace` itself, or the binding of that name in the environment of the running Worker.
 *
 * @throws {SessionDriverError} `configuration` if there is no such binding, or if this is not a Worker.
 */
export async function findNamespace(namespace: string | KvNamespace = 'SESSION'): Promise<KvNamespace> {
  if (typeof namespace !== 'string') return namespace;
  const binding = (await workerEnvironment(namespace))[namespace];
  if (isNamespace(binding)) return binding;
  const problem = binding === undefined ? 'has no' : 'has a variable that is not a';
  throw createError(
    'session-cloudflare-kv',
    'configuration',
    `The Worker's environment ${problem} KV namespace: \`${namespace}\`. Run\n\n` +
      `  npx wrangler kv namespace create ${namespace}\n\n` +
      `and add this to wrangler.jsonc, with the id that the command prints:\n\n` +
      `  "kv_namespaces": [{ "binding": "${namespace}", "id": "<id>" }]\n\n` +
      'To use a binding with another name, set the option `namespace` to that name.',
  );
}

async function workerEnvironment(namespace: string): Promise<Record<string, unknown>> {
  try {
    return (await import('cloudflare:workers')).env;
  } catch (cause) {
    throw createError(
      'session-cloudflare-kv',
      'configuration',
      `This is not a Cloudflare Worker: the KV namespace \`${namespace}\` cannot be found without the module \`cloudflare:workers\`. Use ` +
        '`@astrojs/cloudflare`, or pass the binding itself to "@coatcheck/session-cloudflare-kv/runtime" as `namespace`.',
      { cause },
    );
  }
}
