import { kvNamespace, type KvNamespace } from './options.ts';

/**
 * The KV namespace with this binding in the environment of the running Worker.
 *
 * @throws {SessionDriverError} `configuration` if there is no such binding, or if this is not a Worker.
 */
export async function findNamespace(name = 'SESSION'): Promise<KvNamespace> {
  const worker = await import('cloudflare:workers').catch(() => undefined);
  const binding = worker?.env[name];
  if (kvNamespace.fits(binding)) return binding;
  throw (await import('./problems.ts')).noNamespace(worker?.env, name);
}
