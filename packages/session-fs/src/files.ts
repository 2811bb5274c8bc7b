import { constants } from 'node:fs';
import { access, mkdir, readFile, rename, rm, unlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createError, type Lifetime, type StoreCall, type ValueBackend } from '@coatcheck/session-core/driver';
import {
  claimOf,
  codeOf,
  draftOf,
  drafts,
  finish,
  formatHead,
  hasVersion,
  ifFolder,
  linked,
  parseHead,
  removed,
  unlessMissing,
} from './claims.ts';

/** The minimum time between two automatic sweeps. Each sweeps one of 256 folders, so a full round takes 43 minutes or more. */
const SWEEP_EVERY_MS = 10_000;

/**
 * Opens a directory as a backend of whole values: one file for each value, with compare-and-set across the processes of one machine. It
 * uses no locks, so a process that crashes cannot leave one behind. Creates the directory if it is missing.
 *
 * Each stored value has a version that is never used again. A write has these steps:
 *
 * 1. Write the complete new value into a draft, a file of its own.
 * 2. Claim the version that was read: create a hard link to the draft whose name contains that version. Only one writer can create it.
 * 3. Check that the file still has that version. No other writer can replace it now.
 * 4. Rename the draft to the file, and remove the claim.
 *
 * A new value needs no claim: its draft is linked to the name of the file, which must not exist yet.
 *
 * If a writer ends between steps 2 and 4, the next writer that finds the claim finishes the rename. The name of a draft is unique, so the
 * rename happens once, no matter how many processes try. A claim is removed only after the file no longer has the claimed version.
 *
 * Readers need no coordination, because a file is always one complete value.
 *
 * @param timeoutMs the timeout of one operation, in milliseconds. A sweep uses half of it.
 */
export async function openFiles(directory: string, timeoutMs: number): Promise<ValueBackend> {
  const run = <Result>(work: () => Promise<Result>): Promise<Result> =>
    work().catch(async (error: unknown) => {
      // Loaded with the first failure. Without the module, the error is passed on unchanged.
      const problems = await import('./problems.ts').catch(() => undefined);
      throw problems ? problems.explain(error, directory) : error;
    });

  let sweptAt = Date.now();
  /** The folder that was swept last. The next sweep continues after it. */
  let position = '';

  const sweepUntil = async (stopAt: number, limit: number, call?: StoreCall): Promise<number> => {
    const { sweepFolders } = await import('./sweep.ts');
    const isOver = (): boolean => Date.now() >= stopAt || call?.signal.aborted === true;
    const swept = await sweepFolders(directory, { after: position, limit, isOver });
    position = swept.position;
    return swept.count;
  };

  const sweepInBackground = (): void => {
    if (Date.now() - sweptAt < SWEEP_EVERY_MS) return;
    sweptAt = Date.now();
    // No request waits for this sweep, so nobody needs its error. The next sweep tries again.
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
        const draft = { version: nodeCrypto().randomBytes(12).toString('base64url'), value, lifetimeMs, signal };
        drafts.add(draft.version);
        try {
          const stored = await (version === null ? create(file, draft) : replace(file, version as string, draft));
          if (stored) sweepInBackground();
          return stored;
        } finally {
          drafts.delete(draft.version);
        }
      }),

    // Only sessions have such names. `rm` also removes a directory of that name, which `unlink` would refuse.
    remove: (key) => run(() => rm(fileOf(directory, key), { recursive: true, force: true })),

    // Stops after half of the timeout, so that the caller gets the count and not an error. The next call continues from there.
    sweep: (limit, call) => run(() => sweepUntil(Date.now() + timeoutMs / 2, limit, call)),
  };
}

// Not imported, because loading it takes milliseconds.
const nodeCrypto = () => process.getBuiltinModule('node:crypto');

/** The file for a key. 256 folders keep each folder small. The name is valid for every key and cannot leave its folder. */
function fileOf(directory: string, key: string): string {
  const digest = nodeCrypto().hash('sha256', key);
  const name = encodeURIComponent(key).replaceAll('.', '%2E');
  return join(directory, digest.slice(0, 2), name.length <= 200 ? name : digest);
}

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
  // From here on, a failure leaves the draft and the claim. The next writer finishes the write, so this caller cannot know its outcome.
  const path = draftOf(file, draft.version);
  let stored = true;
  if (await hasVersion(file, version)) await unlessMissing(rename(path, file));
  // Another process that found the claim may have finished this write. Then the draft has been renamed to the file and is gone.
  else stored = !(await removed(path));
  await removed(claim);
  return stored;
}

/** Writes a draft and links it to `name`. False if that name exists already; the draft is then removed. */
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

function corrupt(file: string): Error {
  return createError(
    'session-fs',
    'refused',
    `${file} is not a session that this version can read. If the machine lost power during a write, delete the file.`,
  );
}
