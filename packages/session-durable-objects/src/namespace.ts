import type { Resolved } from '@coatcheck/session-core/driver';
import {
  isNamespace,
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
  const found = client ?? (await binding(namespace));
  if (jurisdiction === undefined) return found;
  try {
    return found.jurisdiction(jurisdiction);
  } catch (error) {
    throw (await import('./problems.ts')).wrongPlace(error);
  }
}

async function binding(name: string): Promise<SessionNamespace> {
  const value = (await workerEnvironment(name))[name];
  if (isNamespace(value)) return value;
  throw (await import('./problems.ts')).noNamespace(name, value);
}

async function workerEnvironment(name: string): Promise<Record<string, unknown>> {
  try {
    return (await import('cloudflare:workers')).env;
  } catch (cause) {
    throw (await import('./problems.ts')).noWorker(name, cause);
  }
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
