import { pause } from '@coatcheck/session-core/driver';
import type { RedisCommand, RedisConnection } from '@coatcheck/session-core/redis';
import type * as upstash from '@upstash/redis/cloudflare';
import { explain, interrupted, notSent, unusable, type Meaning } from './errors.ts';
import type { Target } from './options.ts';

/** The module of the client, loaded when it is first needed. */
export type Client = typeof upstash;

/** The part of the deadline in which what failed is sent again. What is left is for saying why. */
const PATIENCE = 0.75;
const FIRST_RETRY_MS = 50;
const LAST_RETRY_MS = 800;

/**
 * Upstash's client makes the requests, one a command. What else it does is switched off: its retries send writes twice and know no
 * deadline, and its parsing takes values for JSON.
 */
export function openConnection({ Redis }: Client, target: Target, timeoutMs: number): RedisConnection {
  let signalOfNext: AbortSignal | undefined;
  const redis = new Redis({
    ...target,
    // Asked for within `exec`, before that returns. Only from a function: of another kind the client makes a reply when it aborts.
    signal: () => signalOfNext!,
    // `false` stands for one retry.
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

  /** The reply, or what went wrong. */
  const attempt = async (command: RedisCommand, signal: AbortSignal): Promise<{ reply: unknown } | Meaning> => {
    try {
      const reply = await exchange(command, signal);
      return isReply(command, reply) ? { reply } : unusable();
    } catch (error) {
      if (command.name === 'EVALSHA' && isUnknownScript(error)) return attempt(withSource(command), signal);
      return explain(error);
    }
  };

  return {
    async send(command, { signal }) {
      const patienceEndsAt = Date.now() + timeoutMs * PATIENCE;
      let refused: Error | undefined;
      // After a freeze the process learns only now which connections were closed meanwhile. A write that went out on one of them would
      // be lost.
      await nextTurn();
      for (let waitMs = FIRST_RETRY_MS; ; waitMs = Math.min(waitMs * 2, LAST_RETRY_MS)) {
        if (signal.aborted) throw refused ?? notSent();
        const outcome = await attempt(command, signal);
        if ('reply' in outcome) return outcome.reply;
        // Nobody knows how far the request came: the engine says that time is up.
        signal.throwIfAborted();
        if (outcome.uncertain && !command.repeatable) throw interrupted();
        // Those who were refused together do not come back together.
        const jitteredMs = waitMs * (0.5 + Math.random());
        if (!outcome.passing || Date.now() + jitteredMs > patienceEndsAt) throw outcome.error;
        refused = outcome.error;
        await pause(jitteredMs, { signal });
      }
    },
  };
}

function withSource({ args, script, ...command }: RedisCommand): RedisCommand {
  return { ...command, name: 'EVAL', args: [script!, ...args.slice(1)] };
}

function isUnknownScript(error: unknown): boolean {
  return (error as Error).message.startsWith('NOSCRIPT');
}

/**
 * Whether Redis can have answered so: a script with a text, pairs of texts or nothing; HGETALL with pairs; DEL with a number; MGET of one key with
 * one text or nothing.
 */
function isReply({ name }: RedisCommand, reply: unknown): boolean {
  if (name === 'DEL') return typeof reply === 'number';
  if (name === 'MGET') return Array.isArray(reply) && reply.length === 1 && isTextOrNull(reply[0]);
  if (Array.isArray(reply)) return reply.length % 2 === 0 && reply.every((item) => typeof item === 'string');
  return name !== 'HGETALL' && isTextOrNull(reply);
}

function isTextOrNull(reply: unknown): boolean {
  return typeof reply === 'string' || reply === null;
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    // A Worker has it only with the flag `nodejs_compat`.
    const schedule = (globalThis as { setImmediate?: (work: () => void) => void }).setImmediate ?? setTimeout;
    schedule(resolve);
  });
}
