import { string, type FromEnv, type OptionKinds, type SharedOptions } from '@coatcheck/session-core/driver';

export interface FsDriverConfig extends SharedOptions {
  /**
   * The folder that holds the sessions; made when it is missing. A relative one begins at the folder in which the server was started.
   * Default: `.sessions`.
   */
  directory?: FromEnv<string>;
}

export const fsKinds: OptionKinds<Omit<FsDriverConfig, keyof SharedOptions>> = {
  directory: string,
};
