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
  throw (await import('./problems.ts')).noNamespace(namespace, binding);
}

async function workerEnvironment(namespace: string): Promise<Record<string, unknown>> {
  try {
    return (await import('cloudflare:workers')).env;
  } catch (cause) {
    throw (await import('./problems.ts')).noWorker(namespace, cause);
  }
}
