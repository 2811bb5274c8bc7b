import { hash, randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { access, link, mkdir, open, readdir, readFile, rename, rm, stat, unlink, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import {
  createError,
  type LegacySessions,
  type Lifetime,
  type StoreCall,
  type ValueBackend,
} from '@coatcheck/session-core/driver';

/** How often a write looks for expired files as well, in one of 256 folders: all have had their turn after 43 minutes. */
const SWEEP_EVERY_MS = 10_000;
/** Longer than any operation may take: what is older was left by a process that ended in the middle of one. */
const ABANDONED_MS = 3_600_000;

/**
 * A folder of files, one for each value, with compare-and-set across the processes of one machine. There is no lock that a process
 * could leave behind.
 *
 * Every stored value has a version that is never used again. A writer puts the new value, complete, into a draft. Then it claims the
 * version that it read: the claim is a hard link to the draft under a name made of that version, and of all who try only one can make
 * it. Then it looks whether the file still has that version: if it has, no other can replace it any more, and the draft takes the
 * file's place in one rename. Should the writer end before that, whoever claims the same version next does the rename for it; the
 * draft's name is unique, so that it happens once however many try. A claim is removed only after the file has left its version.
 *
 * Readers just read: a file is always one complete value.
 */
export async function openFiles(directory: string, timeoutMs: number): Promise<ValueBackend> {
  const run = <Result>(work: () => Promise<Result>): Promise<Result> => explained(directory, work);

  let sweptAt = Date.now();
  /** The folder that was swept last: the next sweep goes on behind it. */
  let position = '';

  const sweepUntil = async (stopAt: number, limit: number, call?: StoreCall): Promise<number> => {
    const folders = (await readdir(directory)).filter((name) => /^[\da-f]{2}$/.test(name)).sort();
    let count = 0;
    for (const folder of [...folders.filter((it) => it > position), ...folders.filter((it) => it <= position)]) {
      count += await sweepFolder(join(directory, folder), limit - count);
      if (count >= limit) break;
      position = folder;
      if (Date.now() >= stopAt || call?.signal.aborted) break;
    }
    return count;
  };

  const sweepNowAndThen = (): void => {
    if (Date.now() - sweptAt < SWEEP_EVERY_MS) return;
    sweptAt = Date.now();
    // It belongs to no request, and what it could not do is done the next time.
    void sweepUntil(0, Infinity).catch(() => undefined);
  };

  await run(async () => {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await access(directory, constants.R_OK | constants.W_OK | constants.X_OK);
  });

  return {
    compareAndSet: true,

    get: (key) =>
      run(async () => {
        const file = fileOf(directory, key);
        const text = await unlessMissing(readFile(file, 'utf8').catch(ifFolder('')));
        if (text === null) return null;
        const head = parseHead(text);
        const value = text.slice(head?.length);
        if (!head) return { unreadable: corrupt(file) };
        const { version } = head;
        return value.length === head.valueLength ? { value, version } : { unreadable: corrupt(file), version };
      }),

    set: (key, value, { lifetimeMs, version, signal }) =>
      run(async () => {
        const file = fileOf(directory, key);
        const draft = { version: randomBytes(12).toString('base64url'), value, lifetimeMs, signal };
        const stored = version === null ? await create(file, draft) : await replace(file, version as string, draft);
        if (stored) sweepNowAndThen();
        return stored;
      }),

    // Nothing but a session can have that name: also a folder, which `unlink` refuses, goes.
    remove: (key) => run(() => rm(fileOf(directory, key), { recursive: true, force: true })),

    // Half of the deadline: the caller is told how many there were, and goes on from there with the next call.
    sweep: (limit, call) => run(() => sweepUntil(Date.now() + timeoutMs / 2, limit, call)),
  };
}

/** What Astro's own driver left: one file a session, under its id. */
export const legacyFiles: LegacySessions = {
  read(id, base) {
    const folder = legacyFolder(base);
    return explained(folder, () => unlessMissing(readFile(join(folder, id), 'utf8').catch(ifFolder(''))));
  },
  remove(id, base) {
    const folder = legacyFolder(base);
    return explained(folder, async () => void (await removed(join(folder, id))));
  },
};

// ------------------------------------------------------------------------------------------------------------------ names

/** 256 folders keep each one short. Every key makes a name that is legal and stays inside of the folder. */
function fileOf(directory: string, key: string): string {
  const digest = hash('sha256', key);
  const name = encodeURIComponent(key).replaceAll('.', '%2E');
  return join(directory, digest.slice(0, 2), name.length <= 200 ? name : digest);
}

/** Where Astro's own driver puts sessions: by itself in the cache of the build, which has to be where the server runs. */
const legacyFolder = (base = 'node_modules/.astro/sessions'): string => resolve(base);

// No name of a file has a `+` in it: it is encoded.
const draftOf = (file: string, version: string): string => `${file}+${version}`;
const claimOf = (file: string, version: string): string => `${file}+after+${version}`;

// ------------------------------------------------------------------------------------------------------------------ heads

interface Head {
  version: string;
  /** When the value goes, in epoch milliseconds. */
  until: number;
  /** Where the value begins. */
  length: number;
  /** In UTF-16 units; a value that is shorter was cut off when the machine lost power. */
  valueLength: number;
}

const HEAD_BYTES = 64;

function formatHead(version: string, lifetimeMs: Lifetime, value: string): string {
  const until = lifetimeMs === 'never' ? '' : Math.min(Math.ceil(Date.now() + lifetimeMs), Number.MAX_SAFE_INTEGER);
  return `1 ${version} ${until} ${value.length}\n`;
}

function parseHead(text: string): Head | null {
  const [head, version, until, valueLength] = /^1 ([\w-]{16}) (\d*) (\d+)\n/.exec(text) ?? [];
  if (head === undefined || version === undefined) return null;
  return { version, until: until ? Number(until) : Infinity, length: head.length, valueLength: Number(valueLength) };
}

/** Null when there is no such file, or none of ours. */
async function readHead(file: string): Promise<Head | null> {
  const handle = await unlessMissing(open(file));
  if (!handle) return null;
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
    return parseHead(buffer.toString('latin1', 0, bytesRead));
  } finally {
    await handle.close();
  }
}

const hasVersion = async (file: string, version: string): Promise<boolean> =>
  (await readHead(file))?.version === version;

// ---------------------------------------------------------------------------------------------------------------- writing

interface Draft extends StoreCall {
  version: string;
  value: string;
  lifetimeMs: Lifetime;
}

async function create(file: string, draft: Draft): Promise<boolean> {
  if (!(await place(file, draft, file))) return false;
  await removed(draftOf(file, draft.version));
  return true;
}

async function replace(file: string, version: string, draft: Draft): Promise<boolean> {
  const claim = claimOf(file, version);
  if (!(await place(file, draft, claim))) {
    await finish(file, version);
    return false;
  }
  // From here on a failure leaves the draft and the claim: whoever comes next finishes what this caller cannot know the end of.
  const path = draftOf(file, draft.version);
  let stored = true;
  if (await hasVersion(file, version)) await unlessMissing(rename(path, file));
  // Another process that met the claim may have finished this write: then the draft has become the file.
  else stored = !(await removed(path));
  await removed(claim);
  return stored;
}

/** Writes a draft, and links it to a name that must be free. Whether it was; if not, there is no draft either. */
async function place(file: string, { version, value, lifetimeMs, signal }: Draft, name: string): Promise<boolean> {
  const path = draftOf(file, version);
  let placed = false;
  try {
    await writeNew(path, `${formatHead(version, lifetimeMs, value)}${value}`);
    signal.throwIfAborted();
    placed = await linked(path, name);
  } finally {
    if (!placed) await unlink(path).catch(() => undefined);
  }
  return placed;
}

async function writeNew(path: string, text: string): Promise<void> {
  const write = () => writeFile(path, text, { flag: 'wx', mode: 0o600 });
  try {
    await write();
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await write();
  }
}

/** Does what the process that claimed this version may not live to do. */
async function finish(file: string, version: string): Promise<void> {
  const claim = claimOf(file, version);
  const next = await readHead(claim);
  if (!next || isRemoval(next, version)) return;
  if (await hasVersion(file, version)) await unlessMissing(rename(draftOf(file, next.version), file));
  await removed(claim);
}

/** A file that is to be removed is linked as its own successor. */
const isRemoval = (next: Head, version: string): boolean => next.version === version;

/** Whether the link could be made: false when there is something under that name. */
async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    throw error;
  }
}

// --------------------------------------------------------------------------------------------------------------- sweeping

/** As many as Node's threads for files: more would wait there, and requests behind them. */
const LOOKED_AT_AT_ONCE = 4;

async function sweepFolder(folder: string, limit: number): Promise<number> {
  const names = (await readdir(folder, { withFileTypes: true })).filter((it) => it.isFile()).map((it) => it.name);
  let count = 0;
  while (names.length > 0 && count < limit) {
    const next = names.splice(0, Math.min(LOOKED_AT_AT_ONCE, limit - count));
    count += (await Promise.all(next.map((name) => sweepFile(folder, name)))).filter(Boolean).length;
  }
  return count;
}

/** Whether it was a session that had expired. */
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
  // The same claim that a writer makes: an expired value that somebody is about to replace is not there to be removed.
  const claim = claimOf(file, head.version);
  if (!(await linked(file, claim).catch(ifMissing(false)))) return false;
  const claimed = await hasVersion(file, head.version);
  if (claimed) await removed(file);
  await removed(claim);
  return claimed;
}

async function removeAbandoned(file: string, path: string, mark: string[]): Promise<void> {
  const found = await unlessMissing(stat(path));
  if (!found || Date.now() - found.ctimeMs < ABANDONED_MS) return;
  const [kind, version = ''] = mark;
  if (kind === 'after') {
    const next = await readHead(path);
    if (next && isRemoval(next, version)) await removed(path);
    else await finish(file, version);
  } else if (found.nlink === 1) {
    // One with another name is claimed, and goes with its claim.
    await removed(path);
  }
}

// ----------------------------------------------------------------------------------------------------------------- errors

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException | undefined)?.code;

function ifCode<Instead>(code: string, instead: Instead): (error: unknown) => Instead {
  return (error) => {
    if (codeOf(error) === code) return instead;
    throw error;
  };
}

const ifMissing = <Instead>(instead: Instead) => ifCode('ENOENT', instead);
/** A folder in a file's place holds nothing that we could read. */
const ifFolder = <Instead>(instead: Instead) => ifCode('EISDIR', instead);

/** Null when there is no such file. */
function unlessMissing<Result>(work: Promise<Result>): Promise<Result | null> {
  return work.catch(ifMissing(null));
}

/** Whether there was such a file to remove. */
const removed = async (path: string): Promise<boolean> => (await unlessMissing(unlink(path))) !== null;

const NO_ROOM = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);
const NO_LINKS = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']);
const DENIED = new Set(['EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'EEXIST']);

async function explained<Result>(folder: string, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    throw explain(error, folder);
  }
}

/** What the system says, in words that say what to do; anything else as it is. */
function explain(error: unknown, directory: string): unknown {
  const code = codeOf(error) ?? '';
  if (NO_ROOM.has(code)) {
    return createError(
      'session-fs',
      'refused',
      `There is no room for another file in ${directory} (${code}). Nothing was stored; the session is as it was before. Make room ` +
        `on that disk, or let \`directory\` name a folder on another.`,
      { cause: error },
    );
  }
  if (NO_LINKS.has(code) && (error as NodeJS.ErrnoException).syscall === 'link') {
    return createError(
      'session-fs',
      'configuration',
      `The file system of ${directory} makes no hard links (${code}), without which changes are not safe. Let \`directory\` name a ` +
        `folder on a local disk.`,
      { cause: error },
    );
  }
  if (DENIED.has(code)) {
    return createError(
      'session-fs',
      'configuration',
      `${directory} is no folder that this process may read and write (${code}). Make it one, or let \`directory\` name another.`,
      { cause: error },
    );
  }
  return error;
}

function corrupt(file: string): Error {
  return createError(
    'session-fs',
    'refused',
    `${file} is no session that this version can read. If the machine lost power while it was written, remove it.`,
  );
}
