import { string, type FromEnv, type OptionKinds, type SharedOptions } from '@coatcheck/session-core/driver';

// Only the options that this backend alone has. No option may be called `binding`: Astro's Cloudflare adapter overwrites it.
export interface PostgresDriverConfig extends SharedOptions {
  /**
   * TODO: where the backend is.
   *
   * @default the environment variable POSTGRES_URL
   */
  url?: FromEnv<string>;
}

export const postgresKinds: OptionKinds<Omit<PostgresDriverConfig, keyof SharedOptions>> = {
  url: string,
};
