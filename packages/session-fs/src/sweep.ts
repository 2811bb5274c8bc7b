import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import {
  claimOf,
  drafts,
  finish,
  hasVersion,
  ifMissing,
  isRemoval,
  linked,
  readHead,
  removed,
  unlessMissing,
} from './claims.ts';

/** Longer than any operation can take. An older draft or claim belongs to a process that ended during a write. */
const ABANDONED_MS = 3_600_000;
/** The size of Node's thread pool for file operations. More would fill its queue and delay requests. */
const SWEEP_CONCURRENCY = 4;

/**
 * Sweeps the folders one by one, until `limit` sessions have been removed or `isOver` returns true.
 *
 * @param after the folder to continue after. The folders before it follow at the end.
 * @returns the number of removed sessions, and the last folder that was swept completely.
 */
export async function sweepFolders(
  directory: string,
  { after, limit, isOver }: { after: string; limit: number; isOver(): boolean },
): Promise<{ count: number; position: string }> {
  const folders = (await readdir(directory)).filter((name) => /^[\da-f]{2}$/.test(name)).sort();
  let count = 0;
  let position = after;
  for (const folder of [...folders.filter((it) => it > after), ...folders.filter((it) => it <= after)]) {
    count += await sweepFolder(join(directory, folder), limit - count);
    if (count >= limit) break;
    position = folder;
    if (isOver()) break;
  }
  return { count, position };
}

/** Removes up to `limit` expired sessions from a folder, and all that unfinished writes have left there. Resolves to the number of sessions. */
async function sweepFolder(folder: string, limit: number): Promise<number> {
  const names = (await readdir(folder, { withFileTypes: true })).filter((it) => it.isFile()).map((it) => it.name);
  let count = 0;
  while (names.length > 0 && count < limit) {
    const next = names.splice(0, Math.min(SWEEP_CONCURRENCY, limit - count));
    count += (await Promise.all(next.map((name) => sweepFile(folder, name)))).filter(Boolean).length;
  }
  return count;
}

/** Removes a file if it is an expired session, or was abandoned. Resolves to whether it was an expired session. */
async function sweepFile(folder: string, found: string): Promise<boolean> {
  const [name = '', ...mark] = found.split('+');
  const file = join(folder, name);
  if (mark.length === 0) return removeExpired(file);
  await removeAbandoned(file, join(folder, found), mark);
  return false;
}

async function removeExpired(file: string): Promise<boolean> {
  const head = await readHead(file);
  if (!head || head.until > Date.now()) return false;
  // Claims the version as a writer would. If a writer has claimed it first, the expired value is about to be replaced and stays.
  const claim = claimOf(file, head.version);
  if (!(await linked(file, claim).catch(ifMissing(false)))) return false;
  const claimed = await hasVersion(file, head.version);
  if (claimed) await removed(file);
  await removed(claim);
  return claimed;
}

async function removeAbandoned(file: string, path: string, mark: string[]): Promise<void> {
  const found = await unlessMissing(stat(path));
  const [kind, version = ''] = mark;
  // The mark of a draft is its version.
  if (!found || drafts.has(kind!) || Date.now() - found.ctimeMs < ABANDONED_MS) return;
  if (kind === 'after') {
    const next = await readHead(path);
    if (next && isRemoval(next, version)) await removed(path);
    else await finish(file, version);
  } else if (found.nlink === 1) {
    // This draft is not claimed. A claimed draft has a second link, the claim, and is removed together with it.
    await removed(path);
  }
}
