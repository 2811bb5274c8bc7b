import { string, type FromEnv, type OptionKinds, type SharedOptions } from '@coatcheck/session-core/driver';

// Only the options that this backend alone has. No option may be called `binding`: Astro's Cloudflare adapter overwrites it.
export interface ThingDriverConfig extends SharedOptions {
  /**
   * TODO: where the backend is.
   *
   * @default the environment variable THING_URL
   */
  url?: FromEnv<string>;
}

export const thingKinds: OptionKinds<Omit<ThingDriverConfig, keyof SharedOptions>> = {
  url: string,
};
