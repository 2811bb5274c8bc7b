import type { Resolved } from '@coatcheck/session-core/driver';
import {
  sessionNamespace,
  type DurableObjectsRuntimeConfig,
  type LegacyNamespace,
  type SessionNamespace,
} from './options.ts';

/**
 * The Durable Object namespace: `client`, or the binding with the name `namespace` in the environment of the running Worker; the part of it
 * in `jurisdiction` if that is set.
 *
 * @throws {SessionDriverError} `configuration` if there is no such namespace, or if this is not a Worker.
 */
export async function findNamespace({
  client,
  namespace = 'SESSIONS',
  jurisdiction,
}: Resolved<DurableObjectsRuntimeConfig>): Promise<SessionNamespace> {
  const found = client ?? (await findBinding(namespace));
  if (jurisdiction === undefined) return found;
  try {
    return found.jurisdiction(jurisdiction);
  } catch (error) {
    throw (await import('./problems.ts')).wrongPlace(error);
  }
}

async function findBinding(name: string): Promise<SessionNamespace> {
  const worker = await import('cloudflare:workers').catch(() => undefined);
  const binding = worker?.env[name];
  if (sessionNamespace.fits(binding)) return binding;
  throw (await import('./problems.ts')).noNamespace(worker?.env, name);
}

/** The KV binding in which Astro's Cloudflare adapter stores sessions by default. Undefined if the Worker has none. */
export async function findLegacyNamespace(): Promise<LegacyNamespace | undefined> {
  const env = await import('cloudflare:workers').then(
    (worker) => worker.env,
    () => ({}),
  );
  const { SESSION: kv } = env as { SESSION?: Partial<LegacyNamespace> };
  return typeof kv?.get === 'function' && typeof kv.delete === 'function' ? (kv as LegacyNamespace) : undefined;
}
