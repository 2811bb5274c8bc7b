import { legacyKey, retry, type DriverStore, type StoreCall } from '@coatcheck/session-core/driver';
import type { LegacyNamespace, SessionNamespace } from './options.ts';
import type { Request, Result } from './record.ts';

/** How long to wait at most before a read is sent again, in milliseconds. */
const RETRY_MS = 200;
/** The shortest time that KV allows for its cache, in seconds. */
const MIN_CACHE_SECONDS = 30;

/** The part of an object's stub that the driver uses. */
interface Stub {
  operate(request: Request): Promise<unknown>;
}

/** Options of `durableObjectsStore`. The first two are those of the driver. */
export interface StoreOptions {
  locationHint?: string | undefined;
  jurisdiction?: string | undefined;
  /** The timeout of one operation, in milliseconds. */
  timeoutMs: number;
  /** Finds the KV binding in which Astro's adapter stores sessions; undefined if there is none. */
  findLegacyNamespace(): Promise<LegacyNamespace | undefined>;
}

/** A store with one Durable Object for each key. Each operation is one call of that object, which runs its operations one after another. */
export function durableObjectsStore(
  namespace: SessionNamespace,
  { locationHint, jurisdiction, timeoutMs, findLegacyNamespace }: StoreOptions,
): DriverStore {
  const ask = async (key: string, request: Request, { signal }: StoreCall): Promise<Result> => {
    signal.throwIfAborted();
    let stub: Stub;
    try {
      const place = (jurisdiction === undefined ? namespace : namespace.jurisdiction(jurisdiction)) as SessionNamespace;
      // A new one each time, because a stub no longer works after some errors.
      stub = place.get(place.idFromName(key), locationHint === undefined ? {} : { locationHint }) as Stub;
    } catch (error) {
      throw (await import('./problems.ts')).wrongPlace(error);
    }
    const answer = await stub.operate(request);
    if (!isResult(answer)) throw new Error('The answer is of another version.');
    return answer;
  };

  const write = async (key: string, request: Request, call: StoreCall): Promise<Result> => {
    try {
      return await ask(key, request, call);
    } catch (error) {
      throw (await import('./problems.ts')).explainWrite(error);
    }
  };

  return {
    atomic: true,
    read: (key, { signal, extendIdleMs }) =>
      retry(() => ask(key, { version: 1, operation: 'read', extendIdleMs }, { signal }), {
        signal,
        forMs: timeoutMs / 2,
        pauseMs: RETRY_MS,
        judge: async (error) => (await import('./problems.ts')).judgeRead(error),
      }) as ReturnType<DriverStore['read']>,
    patch: (key, change, call) =>
      write(key, { version: 1, operation: 'patch', change }, call) as ReturnType<DriverStore['patch']>,
    destroy: (key, tombstoneMs, call) =>
      write(key, { version: 1, operation: 'destroy', tombstoneMs }, call) as ReturnType<DriverStore['destroy']>,
    legacySessions: {
      async read(id, base) {
        return (await findLegacyNamespace())?.get(legacyKey(id, base), { cacheTtl: MIN_CACHE_SECONDS });
      },
      async remove(id, base) {
        await (await findLegacyNamespace())?.delete(legacyKey(id, base));
      },
    },
  };
}

/** An object of a newer version could answer in another form. Only null is a missing session. */
function isResult(answer: unknown): answer is Result {
  return (
    answer === null ||
    answer instanceof Map ||
    ['applied', 'destroyed', 'missing', 'conflict'].includes(answer as string)
  );
}
