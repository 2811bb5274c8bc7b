import { string, type FromEnv, type OptionKinds, type SharedOptions } from '@coatcheck/session-core/driver';

/** The options of `fsDriver()`. */
export interface FsDriverConfig extends SharedOptions {
  /**
   * The directory for the sessions. It is created if it is missing. A relative path starts at the working directory of the server process.
   * It must be on a file system with hard links; use a local disk.
   *
   * @default '.sessions'
   */
  directory?: FromEnv<string>;
}

export const fsKinds: OptionKinds<Omit<FsDriverConfig, keyof SharedOptions>> = {
  directory: string,
};
