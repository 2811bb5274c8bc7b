import { createError } from '@coatcheck/session-core/driver';
import { codeOf } from './claims.ts';

const NO_SPACE = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);
const NO_LINKS = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']);
const DENIED = new Set(['EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'EEXIST']);

/** Replaces known errors of the operating system by errors that say what to do. Returns any other error unchanged. */
export function explain(error: unknown, directory: string): unknown {
  const code = codeOf(error) ?? '';
  if (NO_SPACE.has(code)) {
    return createError(
      'session-fs',
      'refused',
      `There is no space for another file in ${directory} (${code}). Nothing was stored; the session is unchanged. Free space on that ` +
        `disk, or set \`directory\` to a directory on another disk.`,
      { cause: error },
    );
  }
  if (NO_LINKS.has(code) && (error as NodeJS.ErrnoException).syscall === 'link') {
    return createError(
      'session-fs',
      'configuration',
      `The file system of ${directory} does not support hard links (${code}). Changes are not safe without them. Set \`directory\` to a ` +
        `directory on a local disk.`,
      { cause: error },
    );
  }
  // With `recursive`, `mkdir` answers ENOENT for a read-only disk.
  if (DENIED.has(code) || (code === 'ENOENT' && (error as NodeJS.ErrnoException).syscall === 'mkdir')) {
    return createError(
      'session-fs',
      'configuration',
      `${directory} is not a directory that this process can read and write (${code}). Correct that, or set \`directory\` to ` +
        `another one.`,
      { cause: error },
    );
  }
  return error;
}
