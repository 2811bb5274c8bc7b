import {
  missingVariable,
  readVariable,
  token,
  type FromEnv,
  type OptionKind,
  type OptionKinds,
  type ReadEnv,
  type Resolved,
  type SharedOptions,
} from '@coatcheck/session-core/driver';

export const DRIVER = 'session-upstash';

/** The options of `upstashDriver()`. The Upstash console shows `url` and `token` of a database under "REST API". */
export interface UpstashDriverConfig extends SharedOptions {
  /**
   * The REST URL of the database, such as `https://name.upstash.io`.
   *
   * @default the environment variable `UPSTASH_REDIS_REST_URL`, or `KV_REST_API_URL`, read when the server runs
   */
  url?: FromEnv<string>;
  /**
   * The standard REST token of the database. A read-only token is not enough. A token that is written here literally becomes part of the
   * build; the environment variables and `fromEnv` do not.
   *
   * @default the environment variable `UPSTASH_REDIS_REST_TOKEN`, or `KV_REST_API_TOKEN`, read when the server runs
   */
  token?: FromEnv<string>;
}

// The values are checked here because the client's own errors quote an invalid URL or token.
const restUrl: OptionKind<string> = {
  read(raw) {
    const url = typeof raw === 'string' && URL.canParse(raw) ? new URL(raw) : undefined;
    const isRestUrl =
      url && /^https?:$/.test(url.protocol) && url.username + url.password + url.search + url.hash === '';
    if (!isRestUrl) {
      throw new Error('expected the REST URL of the database, https://name.upstash.io; redis:// is for session-redis');
    }
    return url.href.replace(/\/$/, '');
  },
};

export const upstashKinds: OptionKinds<Omit<UpstashDriverConfig, keyof SharedOptions>> = { url: restUrl, token };

/** The database to connect to. */
export interface Target {
  url: string;
  token: string;
}

/** The variables of Upstash, and those that Vercel sets for a database that it created. The first complete pair is used. */
const PAIRS = [
  ['UPSTASH_REDIS_REST_URL', 'UPSTASH_REDIS_REST_TOKEN'],
  ['KV_REST_API_URL', 'KV_REST_API_TOKEN'],
] as const;

/** The names of all environment variables that the driver may read. */
export const variables: string[] = PAIRS.flat();

/**
 * The database that the options and the environment name.
 *
 * @throws {SessionDriverError} `configuration` if the URL or the token is missing or invalid.
 */
export function targetOf(options: Resolved<UpstashDriverConfig>, env: ReadEnv): Target {
  for (const [urlName, tokenName] of PAIRS) {
    const [urlValue, tokenValue] = [options.url ?? env(urlName), options.token ?? env(tokenName)];
    if (!urlValue || !tokenValue) continue;
    return {
      url: readVariable(DRIVER, restUrl, urlName, urlValue),
      token: readVariable(DRIVER, token, tokenName, tokenValue),
    };
  }
  const hasUrl = options.url !== undefined || PAIRS.some(([urlName]) => env(urlName));
  const [missing, other] = hasUrl ? (['TOKEN', 'token'] as const) : (['URL', 'url'] as const);
  throw missingVariable(DRIVER, `UPSTASH_REDIS_REST_${missing} (or KV_REST_API_${missing})`, other);
}
