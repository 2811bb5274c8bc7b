import { legacyNamespace, sessionNamespace, type LegacyNamespace, type SessionNamespace } from './options.ts';

/**
 * The Durable Object namespace with this binding in the environment of the running Worker.
 *
 * @throws {SessionDriverError} `configuration` if there is no such namespace, or if this is not a Worker.
 */
export async function findNamespace(name = 'SESSIONS'): Promise<SessionNamespace> {
  const env = await findEnvironment();
  const binding = env?.[name];
  if (sessionNamespace.fits(binding)) return binding;
  throw (await import('./problems.ts')).noNamespace(env, name);
}

/** The KV binding in which Astro's Cloudflare adapter stores sessions by default. Undefined if the Worker has none. */
export async function findLegacyNamespace(): Promise<LegacyNamespace | undefined> {
  const binding = (await findEnvironment())?.['SESSION'];
  return legacyNamespace.fits(binding) ? binding : undefined;
}

/** The environment of the running Worker. Undefined if this is not a Worker. */
async function findEnvironment(): Promise<Record<string, unknown> | undefined> {
  return (await import('cloudflare:workers').catch(() => undefined))?.env;
}
