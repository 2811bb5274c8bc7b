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

/** Where the sessions are. Without any option: in the store `sessions` of the site that Netlify runs. */
export interface NetlifyBlobsDriverConfig extends SharedOptions {
  /** The name of the blob store; at most 64 bytes, no slash. Default: `sessions`. */
  name?: FromEnv<string>;
  /** `true`: every deploy has sessions of its own, and a new deploy signs everybody out. Default: false, one store for the site. */
  deployScoped?: FromEnv<boolean>;
  /** The site's id, where Netlify does not run the server. Goes with `token`. */
  siteID?: FromEnv<string>;
  /** A personal access token, where Netlify does not run the server. Goes with `siteID`. */
  token?: FromEnv<string>;
}

// Netlify's own rules; its client finds out with the first session.
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

/** Throws for options that do not go together; one that is read from the environment counts as given. */
export function checkTogether({ siteID, token, deployScoped }: NetlifyBlobsDriverConfig): void {
  if ((siteID === undefined) !== (token === undefined)) {
    throw createError('session-netlify-blobs', 'configuration', 'Pass `siteID` and `token` together, or neither.');
  }
  if (siteID !== undefined && deployScoped === true) {
    throw createError(
      'session-netlify-blobs',
      'configuration',
      '`deployScoped` is for servers that Netlify runs; leave out `siteID` and `token`.',
    );
  }
}
