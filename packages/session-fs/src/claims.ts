import { link, open, rename, unlink } from 'node:fs/promises';
import type { Lifetime } from '@coatcheck/session-core/driver';

// What `files.ts` and `sweep.ts` share. `openFiles` explains drafts and claims.

// Session files never have a `+` in their names, because `encodeURIComponent` encodes it. So `+` marks drafts and claims.
export const draftOf = (file: string, version: string): string => `${file}+${version}`;
export const claimOf = (file: string, version: string): string => `${file}+after+${version}`;

interface Head {
  version: string;
  /** When the value expires, in epoch milliseconds; Infinity if it never does. */
  until: number;
  /** The length of the head, in UTF-16 code units. The value starts after it. */
  length: number;
  /** The length of the value, in UTF-16 code units. A shorter value was cut off, for example by a power failure. */
  valueLength: number;
}

/** More than the length of any head. */
const HEAD_BYTES = 64;

export function formatHead(version: string, lifetimeMs: Lifetime, value: string): string {
  const until = lifetimeMs === 'never' ? '' : Math.min(Math.ceil(Date.now() + lifetimeMs), Number.MAX_SAFE_INTEGER);
  return `1 ${version} ${until} ${value.length}\n`;
}

export function parseHead(text: string): Head | null {
  const [head, version, until, valueLength] = /^1 ([\w-]{16}) (\d*) (\d+)\n/.exec(text) ?? [];
  if (head === undefined || version === undefined) return null;
  return { version, until: until ? Number(until) : Infinity, length: head.length, valueLength: Number(valueLength) };
}

/** Null if the file does not exist or does not start with a valid head. */
export async function readHead(file: string): Promise<Head | null> {
  const handle = await unlessMissing(open(file));
  if (!handle) return null;
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
    return parseHead(buffer.toString('latin1', 0, bytesRead));
  } finally {
    await handle.close();
  }
}

export const hasVersion = async (file: string, version: string): Promise<boolean> =>
  (await readHead(file))?.version === version;

/**
 * The versions of the drafts that this process is writing. Its sweeps leave them alone, even if its clock is ahead of that of the file
 * system, so that they look old.
 */
export const drafts: Set<string> = new Set();

/** Finishes the write that claimed this version, because the process that started it may have ended. */
export async function finish(file: string, version: string): Promise<void> {
  const claim = claimOf(file, version);
  const next = await readHead(claim);
  if (!next || isRemoval(next, version)) return;
  if (await hasVersion(file, version)) await unlessMissing(rename(draftOf(file, next.version), file));
  await removed(claim);
}

/** A removal claims a version with a link to the file itself, so the claim has the version that it claims. */
export const isRemoval = (next: Head, version: string): boolean => next.version === version;

/** Whether the hard link was created: false if `to` exists already. */
export async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    throw error;
  }
}

export const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException | undefined)?.code;

function ifCode<Instead>(code: string, instead: Instead): (error: unknown) => Instead {
  return (error) => {
    if (codeOf(error) === code) return instead;
    throw error;
  };
}

type IfCode = <Instead>(instead: Instead) => (error: unknown) => Instead;

export const ifMissing: IfCode = (instead) => ifCode('ENOENT', instead);
/** Treats a directory in the place of a file as unreadable. */
export const ifFolder: IfCode = (instead) => ifCode('EISDIR', instead);

/** Null if the file does not exist. */
export function unlessMissing<Result>(work: Promise<Result>): Promise<Result | null> {
  return work.catch(ifMissing(null));
}

/** Removes a file. Resolves to whether it existed. */
export const removed = async (path: string): Promise<boolean> => (await unlessMissing(unlink(path))) !== null;
