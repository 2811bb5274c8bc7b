import {
  createError,
  boolean,
  secretString,
  type FromEnv,
  type OptionKind,
  type OptionKinds,
  type SharedOptions,
  string,
} from '@coatcheck/session-core/driver';

export const DRIVER = 'session-netlify-blobs';

/** The options of `netlifyBlobsDriver()`. Without any, sessions are in the blob store `sessions` of the current site. */
export interface NetlifyBlobsDriverConfig extends SharedOptions {
  /**
   * The name of the blob store: at most 64 bytes, without a slash.
   *
   * @default 'sessions'
   */
  name?: FromEnv<string>;
  /**
   * Gives each deploy its own sessions. A new deploy then signs out all users. Cannot be used with `siteID` and `token`.
   *
   * @default false (one store for the site)
   */
  deployScoped?: FromEnv<boolean>;
  /**
   * The id of the site, for a server outside of Netlify. Requires `token`.
   *
   * @default the site that Netlify runs
   */
  siteID?: FromEnv<string>;
  /**
   * A personal access token, for a server outside of Netlify. Requires `siteID`.
   *
   * @default the token that Netlify provides
   */
  token?: FromEnv<string>;
}

// These are Netlify's rules. Its client would report a violation only when the first session is used.
const storeName: OptionKind<string> = {
  read(raw) {
    const name = string.read(raw);
    if (/\/|%2F/i.test(name) || new TextEncoder().encode(name).length > 64)
      throw new Error('expected a name of at most 64 bytes, without a slash');
    return name;
  },
};

export const netlifyBlobsKinds: OptionKinds<Omit<NetlifyBlobsDriverConfig, keyof SharedOptions>> = {
  name: storeName,
  deployScoped: boolean,
  siteID: string,
  token: secretString,
};

/**
 * Checks options that depend on each other. An option with `fromEnv` counts as set.
 *
 * @throws {SessionDriverError} `configuration` if options contradict each other.
 */
export function checkTogether({ siteID, token, deployScoped }: NetlifyBlobsDriverConfig): void {
  if ((siteID === undefined) !== (token === undefined)) {
    throw createError(DRIVER, 'configuration', 'Pass `siteID` and `token` together, or neither.');
  }
  if (siteID !== undefined && deployScoped === true) {
    throw createError(
      DRIVER,
      'configuration',
      '`deployScoped` works only on Netlify. Remove it, or remove `siteID` and `token`.',
    );
  }
}
