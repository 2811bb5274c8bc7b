import type * as Fs from 'node:fs/promises';
import { createError } from '../contract/errors.ts';

// What `legacyFiles` loads when it needs it.

/** Resolves to the text of a legacy session; to null if there is none. */
export function read(driver: string, id: string, base: string | undefined): Promise<unknown> {
  return run(driver, base, (fs, folder) => fs.readFile(`${folder}/${id}`, 'utf8'));
}

/** Removes a legacy session, unless it is gone already. */
export async function remove(driver: string, id: string, base: string | undefined): Promise<void> {
  await run(driver, base, (fs, folder) => fs.unlink(`${folder}/${id}`));
}

async function run(
  driver: string,
  // Astro's default is in the build cache, which must exist where the server runs.
  folder = 'node_modules/.astro/sessions',
  work: (fs: typeof Fs, folder: string) => Promise<unknown>,
): Promise<unknown> {
  try {
    // Not a static import, because core also runs without Node.
    return await work(await import('node:fs/promises'), folder);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return null;
    // A directory is not a session.
    if (code === 'EISDIR') return '';
    // Without the cause: its message contains the path, which ends with the session id.
    throw createError(
      driver,
      'refused',
      `This process cannot read or remove the legacy sessions in ${folder} (${code}). Correct that, or the \`base\` of \`migrateFrom\`.`,
    );
  }
}
