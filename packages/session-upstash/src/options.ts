import {
  createError,
  missingVariable,
  secretString,
  type FromEnv,
  type OptionKind,
  type OptionKinds,
  type ReadEnv,
  type Resolved,
  type SharedOptions,
} from '@coatcheck/session-core/driver';
import { DRIVER } from './errors.ts';

/** Where the database is, and the key to it: what its page in Upstash's console shows under "REST API". */
export interface UpstashDriverConfig extends SharedOptions {
  /** `https://name.upstash.io`. Default: the variable `UPSTASH_REDIS_REST_URL`, or `KV_REST_API_URL`, read when the server runs. */
  url?: FromEnv<string>;
  /**
   * The standard token; one that may only read is not enough. Default: the variable `UPSTASH_REDIS_REST_TOKEN`, or `KV_REST_API_TOKEN`,
   * read when the server runs, which keeps it out of the build.
   */
  token?: FromEnv<string>;
}

// The client's own errors for what cannot be a URL or a header quote it.
const restUrl: OptionKind<string> = {
  read(raw) {
    const url = typeof raw === 'string' && URL.canParse(raw) ? new URL(raw) : undefined;
    const fits = url && /^https?:$/.test(url.protocol) && url.username + url.password + url.search + url.hash === '';
    if (!fits) {
      throw new Error('expected the REST URL of the database, https://name.upstash.io; redis:// is for session-redis');
    }
    return url.href.replace(/\/$/, '');
  },
};

const token: OptionKind<string> = {
  ...secretString,
  read(raw) {
    if (typeof raw !== 'string' || !/^[!-~]+$/.test(raw))
      throw new Error('expected a token, without spaces or quotes around it');
    return raw;
  },
};

export const upstashKinds: OptionKinds<Omit<UpstashDriverConfig, keyof SharedOptions>> = { url: restUrl, token };

export interface Target {
  url: string;
  token: string;
}

/** Upstash's own names, and those that Vercel gives to a database that it has made. The first pair that is there counts. */
const PAIRS = [
  ['UPSTASH_REDIS_REST_URL', 'UPSTASH_REDIS_REST_TOKEN'],
  ['KV_REST_API_URL', 'KV_REST_API_TOKEN'],
] as const;

export const variables: string[] = PAIRS.flat();

export function targetOf(options: Resolved<UpstashDriverConfig>, env: ReadEnv): Target {
  for (const [urlName, tokenName] of PAIRS) {
    const [urlValue, tokenValue] = [options.url ?? env(urlName), options.token ?? env(tokenName)];
    if (!urlValue || !tokenValue) continue;
    return { url: check(restUrl, urlName, urlValue), token: check(token, tokenName, tokenValue) };
  }
  const hasUrl = options.url !== undefined || PAIRS.some(([urlName]) => env(urlName));
  const [missing, other] = hasUrl ? (['TOKEN', 'token'] as const) : (['URL', 'url'] as const);
  throw missingVariable(DRIVER, `UPSTASH_REDIS_REST_${missing} (or KV_REST_API_${missing})`, other);
}

function check(kind: OptionKind<string>, name: string, value: string): string {
  try {
    return kind.read(value);
  } catch (error) {
    throw createError(DRIVER, 'configuration', `${name}: ${(error as Error).message}.`);
  }
}
