import { pause, type Failure } from '@coatcheck/session-core/driver';
import type { RedisCommand, RedisConnection } from '@coatcheck/session-core/redis';
import type * as upstash from '@upstash/redis/cloudflare';
import { explain, interrupted, notSent, unusableReply } from './errors.ts';
import type { Target } from './options.ts';

/** The module of Upstash's client. */
export type Client = typeof upstash;

/** The part of the deadline in which failed commands are sent again. The rest is kept for returning the reason of the failure. */
const RETRY_PORTION = 0.75;
const FIRST_RETRY_MS = 50;
const LAST_RETRY_MS = 800;

/**
 * Opens a connection that sends each command in one request of Upstash's client. The other features of the client are turned off: its
 * retries could apply a write twice and ignore the deadline, and its parser takes values for JSON.
 *
 * @param timeoutMs the deadline of one operation.
 */
export function openConnection({ Redis }: Client, target: Target, timeoutMs: number): RedisConnection {
  let signalOfNext: AbortSignal | undefined;
  const redis = new Redis({
    ...target,
    // The client calls this function inside of `exec`, before `exec` returns. It must be a function: if a plain signal aborts, the client
    // returns a reply instead of an error.
    signal: () => signalOfNext!,
    // `retry: false` would still retry once.
    retry: { retries: 0 },
    automaticDeserialization: false,
    responseEncoding: false,
    enableAutoPipelining: false,
    enableTelemetry: false,
  });

  const exchange = ({ name, args }: RedisCommand, signal: AbortSignal): Promise<unknown> => {
    signalOfNext = signal;
    return redis.exec([name, ...args]);
  };

  /** Sends a command once. Returns the reply, or what the error means. */
  const attempt = async (command: RedisCommand, signal: AbortSignal): Promise<{ reply: unknown } | Failure> => {
    try {
      const reply = await exchange(command, signal);
      return isReply(command, reply) ? { reply } : unusableReply();
    } catch (error) {
      return await explain(error);
    }
  };

  return {
    async send(command, { signal }) {
      const retryUntil = Date.now() + timeoutMs * RETRY_PORTION;
      let lastError: Error | undefined;
      // A process that was frozen learns about connections that were closed in the meantime only on this turn of the event loop. A write on
      // such a connection would be lost.
      await nextTurn();
      for (let waitMs = FIRST_RETRY_MS; ; waitMs = Math.min(waitMs * 2, LAST_RETRY_MS)) {
        if (signal.aborted) throw lastError ?? notSent();
        const outcome = await attempt(command, signal);
        if ('reply' in outcome) return outcome.reply;
        // The outcome of an aborted request is unknown, and the engine reports the timeout.
        signal.throwIfAborted();
        if (outcome.ambiguous && !command.repeatable) throw interrupted();
        // Jitter spreads the retries of requests that failed together.
        const jitteredMs = waitMs * (0.5 + Math.random());
        if (!outcome.transient || Date.now() + jitteredMs > retryUntil) throw outcome.error;
        lastError = outcome.error;
        await pause(jitteredMs, { signal });
      }
    },
  };
}

/**
 * Whether Redis could have sent this reply. A script replies with a string, with pairs of strings or with null; HGETALL with pairs; DEL
 * with a number; MGET of one key with one string or null.
 */
function isReply({ name }: RedisCommand, reply: unknown): boolean {
  if (name === 'DEL') return typeof reply === 'number';
  if (name === 'MGET') return Array.isArray(reply) && reply.length === 1 && isStringOrNull(reply[0]);
  if (Array.isArray(reply)) return reply.length % 2 === 0 && reply.every((item) => typeof item === 'string');
  return name !== 'HGETALL' && isStringOrNull(reply);
}

function isStringOrNull(reply: unknown): boolean {
  return typeof reply === 'string' || reply === null;
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    // A Worker has `setImmediate` only with the flag `nodejs_compat`.
    const schedule = (globalThis as { setImmediate?: (work: () => void) => void }).setImmediate ?? setTimeout;
    schedule(resolve);
  });
}
