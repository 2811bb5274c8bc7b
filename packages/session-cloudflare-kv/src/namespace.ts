import { createError } from '@coatcheck/session-core/driver';
import { isNamespace, type KvNamespace } from './options.ts';

/** The binding: the one that was passed, or the one of that name in the environment of the Worker that runs this. */
export async function findNamespace(namespace: string | KvNamespace = 'SESSION'): Promise<KvNamespace> {
  if (typeof namespace !== 'string') return namespace;
  const binding = (await workerEnvironment(namespace))[namespace];
  if (isNamespace(binding)) return binding;
  const found = binding === undefined ? 'has no' : 'has something else than a';
  throw createError(
    'session-cloudflare-kv',
    'configuration',
    `The Worker's environment ${found} KV namespace \`${namespace}\`. Run\n\n` +
      `  npx wrangler kv namespace create ${namespace}\n\n` +
      `and add to wrangler.jsonc, with the id that it prints:\n\n` +
      `  "kv_namespaces": [{ "binding": "${namespace}", "id": "<id>" }]\n\n` +
      'To use a binding of another name, pass it as the option `namespace`.',
  );
}

async function workerEnvironment(namespace: string): Promise<Record<string, unknown>> {
  try {
    return (await import('cloudflare:workers')).env;
  } catch (cause) {
    throw createError(
      'session-cloudflare-kv',
      'configuration',
      `This is not a Cloudflare Worker: there is no \`cloudflare:workers\` to find the KV namespace \`${namespace}\` in. Use ` +
        '`@astrojs/cloudflare`, or pass the binding itself to "@coatcheck/session-cloudflare-kv/runtime" as `namespace`.',
      { cause },
    );
  }
}
