import {
  createError,
  pause,
  type Resolved,
  type StoreCall,
  isSessionDriverError,
} from '@coatcheck/session-core/driver';
import type { getDeployStore, getStore, Store } from '@netlify/blobs';
import type { NetlifyBlobsDriverConfig } from './options.ts';

/** What became of one piece of work in the store, besides its result. */
export interface Course {
  /** Whether a write that got no answer may have been carried out all the same. It was sent again. */
  unclear: boolean;
}

/** Does something with the blob store. Rejects with an error that says what to do, and sends nothing once the call's signal aborts. */
export type InBlobStore = <Result>(
  call: StoreCall,
  work: (store: Store, course: Course) => Promise<Result>,
) => Promise<Result>;

/** What is waited before a failed request is sent again, in milliseconds, give or take half. */
const PAUSES_MS = [50, 150, 450];

/** The part of Netlify's client that is used; it is imported when it is first needed. */
export interface BlobsClient {
  getStore: typeof getStore;
  getDeployStore: typeof getDeployStore;
}

export function inBlobStore(
  client: BlobsClient,
  { name = 'sessions', deployScoped = false, siteID, token }: Resolved<NetlifyBlobsDriverConfig>,
): InBlobStore {
  return (call, work) =>
    new Promise((resolve, reject) => {
      const course: Course = { unclear: false };
      let failed = false;
      const fail = (error: unknown): void => {
        failed = true;
        reject(explain(error, course));
      };

      // The client would repeat whatever fails for 25 seconds, and takes most failures of a conditional write for a success: it never hears
      // of them.
      const fetch = async (url: unknown, init: RequestInit = {}): Promise<Response> => {
        try {
          if (!failed) return await sendUntilAnswered(String(url), init, call.signal, course);
        } catch (error) {
          fail(error);
        }
        return new Promise(() => {});
      };

      try {
        // Made for every call: Netlify renews the token between the requests that one process serves.
        const options = { name, consistency: 'strong', fetch: fetch as typeof globalThis.fetch } as const;
        const store = deployScoped
          ? client.getDeployStore(options)
          : client.getStore({ ...options, ...(siteID !== undefined && { siteID, token: token! }) });
        work(store, course).then(resolve, fail);
      } catch (error) {
        fail(error);
      }
    });
}

/** Why a request has no usable answer: the status that came instead, or the code of what broke. Quotes nothing: signed URLs are secrets. */
type Failure = Error & { status?: number; broke?: string };

async function sendUntilAnswered(
  url: string,
  init: RequestInit,
  signal: AbortSignal,
  course: Course,
): Promise<Response> {
  let failure: unknown;
  for (let attempt = 0; ; attempt++) {
    // Why the last attempt failed says more than that time is up. How far a request came that is cut off nobody knows.
    if (signal.aborted) throw failure ?? signal.reason;
    try {
      return await send(url, init, signal);
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      failure = error;
      if (isWrite(init) && mayHaveBeenCarriedOut(error as Failure)) course.unclear = true;
      const pauseMs = PAUSES_MS[attempt];
      if (pauseMs === undefined || !mayPass(error as Failure)) throw error;
      await pause(pauseMs * (0.5 + Math.random()), { signal });
    }
  }
}

/** One request and all of its answer: one that breaks off is none. Rejects with a `Failure`. */
async function send(url: string, init: RequestInit, signal: AbortSignal): Promise<Response> {
  // A compressed answer may carry the version of the compressed form, which no write could name.
  const headers = { ...(init.headers as Record<string, string>), 'accept-encoding': 'identity' };
  let response: Response;
  let body: ArrayBuffer;
  try {
    response = await fetch(url, { ...init, headers, signal });
    body = await response.arrayBuffer();
  } catch (error) {
    throw Object.assign(new Error('no answer'), { broke: codeOf(error) }) satisfies Failure;
  }
  const status = meaningOf(response.status, headers);
  if (status >= 400 && status !== 404 && status !== 412) {
    throw Object.assign(new Error('refused'), { status }) satisfies Failure;
  }
  return new Response(body.byteLength > 0 ? body : null, { status, headers: response.headers });
}

/** Storage also says in other words that a condition does not hold: that two writers met (409), or that the value to replace is gone (404). */
function meaningOf(status: number, headers: Record<string, string>): number {
  const isConflict =
    (status === 409 && ('if-match' in headers || 'if-none-match' in headers)) ||
    (status === 404 && 'if-match' in headers);
  return isConflict ? 412 : status;
}

function isWrite({ method }: RequestInit): boolean {
  return method?.toUpperCase() === 'PUT';
}

const NEVER_CONNECTED = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
]);

function mayHaveBeenCarriedOut({ status = 0, broke }: Failure): boolean {
  return status >= 500 || (broke !== undefined && !NEVER_CONNECTED.has(broke));
}

function mayPass({ status = 0, broke }: Failure): boolean {
  return status >= 500 || status === 429 || broke !== undefined;
}

function codeOf(error: unknown): string {
  const { code, cause } = error as { code?: unknown; cause?: { code?: unknown } };
  return [cause?.code, code].find((it) => typeof it === 'string') ?? 'the connection broke';
}

function explain(error: unknown, { unclear }: Course): Error {
  if (!(error instanceof Error)) return new Error(String(error));
  if (isSessionDriverError(error)) return error;
  const { name, status, broke } = error as Failure;
  if (name === 'MissingBlobsEnvironmentError') {
    return problem(
      'configuration',
      'There is no Netlify Blobs here: NETLIFY_BLOBS_CONTEXT is not set. Netlify sets it where it runs the server, and so do ' +
        '`netlify dev` and, with the adapter `@astrojs/netlify`, `astro dev`. Anywhere else pass `siteID` and `token`.',
    );
  }
  if (name === 'BlobsConsistencyError') {
    return problem(
      'configuration',
      'Sessions need consistent reads, and Netlify offers none here: NETLIFY_BLOBS_CONTEXT has no `uncachedEdgeURL`. That is so in ' +
        'functions in Lambda compatibility mode; `@astrojs/netlify` builds others. Otherwise pass `siteID` and `token`.',
    );
  }
  if (status === 401 || status === 403) {
    return problem(
      'refused',
      `Netlify refuses access to the blob store (${status}). With \`siteID\` and \`token\`: is the token valid, and for this site? ` +
        'During a build, only a store with `deployScoped: true` can be written.',
    );
  }
  if (status === 429) {
    return problem('refused', 'Netlify limits how often this site may use its blobs (429). Try again later.');
  }
  if (!mayPass(error)) return status ? problem('refused', `Netlify Blobs refuses the request (${status}).`) : error;
  const what = `Netlify Blobs does not answer as it should (${broke ?? status}), also when it is asked again.`;
  if (unclear) return problem('interrupted', `${what} The write that was under way may have been stored.`);
  return problem('unavailable', `${what} See netlifystatus.com; in development, is the local server running?`);
}

function problem(code: Parameters<typeof createError>[1], message: string): Error {
  return createError('session-netlify-blobs', code, message);
}
