import { pause, type Resolved, type StoreCall, isSessionDriverError } from '@coatcheck/session-core/driver';
import type { getDeployStore, getStore, Store } from '@netlify/blobs';
import type { NetlifyBlobsDriverConfig } from './options.ts';

/** What is known about one operation besides its result. */
export interface WorkStatus {
  /** Whether an attempt of a write got no response and may have been stored. It was sent again. */
  ambiguous: boolean;
}

/**
 * Runs `work` with the blob store. Failed requests are sent again, up to three times. Nothing is sent after the signal of the call has
 * aborted. Rejects with an error that says what to do.
 */
export type InBlobStore = <Result>(
  call: StoreCall,
  work: (store: Store, status: WorkStatus) => Promise<Result>,
) => Promise<Result>;

/** The pauses before a failed request is sent again, in milliseconds. Each is varied at random by up to half. */
const PAUSES_MS = [50, 150, 450];

/** The part of Netlify's client that the driver uses. */
export interface BlobsClient {
  getStore: typeof getStore;
  getDeployStore: typeof getDeployStore;
}

/** Returns a function that runs work in the blob store that the options name. */
export function inBlobStore(
  client: BlobsClient,
  { name = 'sessions', deployScoped = false, siteID, token }: Resolved<NetlifyBlobsDriverConfig>,
): InBlobStore {
  return (call, work) =>
    new Promise((resolve, reject) => {
      const status: WorkStatus = { ambiguous: false };
      let failed = false;
      const fail = (reason: unknown): void => {
        failed = true;
        void explain(reason, status).then(reject);
      };

      // Netlify's client must not see failures: it would retry them for 25 seconds, and it reports most failures of a conditional write as
      // success. So after a failure this promise stays pending, and `fail` rejects the operation.
      const fetch = async (url: unknown, init: RequestInit = {}): Promise<Response> => {
        try {
          if (!failed) return await sendUntilAnswered(String(url), init, call.signal, status);
        } catch (error) {
          fail(error);
        }
        return new Promise(() => {});
      };

      try {
        // Each call creates the store, because Netlify renews the token between the requests that one process serves.
        const options = { name, consistency: 'strong', fetch: fetch as typeof globalThis.fetch } as const;
        const store = deployScoped
          ? client.getDeployStore(options)
          : client.getStore({ ...options, ...(siteID !== undefined && { siteID, token: token! }) });
        work(store, status).then(resolve, fail);
      } catch (error) {
        fail(error);
      }
    });
}

/**
 * A request without a usable response. It has the HTTP status, or the code of the connection error. It quotes nothing else, because signed
 * URLs are secrets.
 */
export type Failure = Error & { status?: number; connectionCode?: string };

async function sendUntilAnswered(
  url: string,
  init: RequestInit,
  signal: AbortSignal,
  status: WorkStatus,
): Promise<Response> {
  let failure: unknown;
  for (let attempt = 0; ; attempt++) {
    // The failure of the last attempt says more than a timeout does.
    if (signal.aborted) throw failure ?? signal.reason;
    try {
      return await send(url, init, signal);
    } catch (error) {
      // This request was aborted on its way, so nothing is known about its outcome.
      if (signal.aborted) throw signal.reason;
      failure = error;
      if (isWrite(init) && mayHaveBeenStored(error as Failure)) status.ambiguous = true;
      const pauseMs = PAUSES_MS[attempt];
      if (pauseMs === undefined || !isTransient(error as Failure)) throw error;
      await pause(pauseMs * (0.5 + Math.random()), { signal });
    }
  }
}

/** Sends one request and reads the whole response. Rejects with a `Failure`, also when the response is cut off. */
async function send(url: string, init: RequestInit, signal: AbortSignal): Promise<Response> {
  // The ETag of a compressed response may be that of the compressed form, which does not match in a conditional write.
  const headers = { ...(init.headers as Record<string, string>), 'accept-encoding': 'identity' };
  let response: Response;
  let body: ArrayBuffer;
  try {
    response = await fetch(url, { ...init, headers, signal });
    body = await response.arrayBuffer();
  } catch (error) {
    throw Object.assign(new Error('no answer'), { connectionCode: codeOf(error) }) satisfies Failure;
  }
  const status = normalizedStatus(response.status, headers);
  if (status >= 400 && status !== 404 && status !== 412) {
    throw Object.assign(new Error('refused'), { status }) satisfies Failure;
  }
  return new Response(body.byteLength > 0 ? body : null, { status, headers: response.headers });
}

/** Maps a failed condition to 412. Storage also answers 409 if two writers collide, and 404 if the blob to replace is gone. */
function normalizedStatus(status: number, headers: Record<string, string>): number {
  const isConflict =
    (status === 409 && ('if-match' in headers || 'if-none-match' in headers)) ||
    (status === 404 && 'if-match' in headers);
  return isConflict ? 412 : status;
}

function isWrite({ method }: RequestInit): boolean {
  return method?.toUpperCase() === 'PUT';
}

/** Error codes of a connection that was not established, so that the request was not sent. */
const NEVER_CONNECTED = /^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|E(HOST|NET)UNREACH|UND_ERR_CONNECT_TIMEOUT)$/;

function mayHaveBeenStored({ status = 0, connectionCode }: Failure): boolean {
  return status >= 500 || (connectionCode !== undefined && !NEVER_CONNECTED.test(connectionCode));
}

/** Whether the request may succeed if it is sent again. */
export function isTransient({ status = 0, connectionCode }: Failure): boolean {
  return status >= 500 || status === 429 || connectionCode !== undefined;
}

function codeOf(error: unknown): string {
  const { code, cause } = error as { code?: unknown; cause?: { code?: unknown } };
  return [cause?.code, code].find((it) => typeof it === 'string') ?? 'the connection broke';
}

/** Replaces a failure, or an error of Netlify's client, by an error that says what to do. Never rejects. */
async function explain(reason: unknown, { ambiguous }: WorkStatus): Promise<Error> {
  if (!(reason instanceof Error)) return new Error(String(reason));
  if (isSessionDriverError(reason)) return reason;
  // Without the module, the error is passed on unchanged.
  const problems = await import('./problems.ts').catch(() => undefined);
  return problems?.problemOf(reason, ambiguous) ?? reason;
}
