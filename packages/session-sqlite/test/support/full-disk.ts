// Fills a disk, and prints what happens to a session:
//   node full-disk.ts <directory> [mount]
// Run it under `ulimit -f`, or with `mount` in a separate mount namespace.
import { spawnSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createSessions, type SessionDriverError } from '@coatcheck/session-core';
import sqlite from '@coatcheck/session-sqlite/runtime';

const [directory = '', mount] = process.argv.slice(2);
if (mount) spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', directory]);
const file = join(directory, 'sessions.db');
const sessions = createSessions({ driver: sqlite({ file }) });

const change = async (cookie: string, key: string, value: string): Promise<string> => {
  const session = sessions.open(cookie);
  session.set(key, value);
  return (await session.commit())?.split(';')[0] ?? cookie;
};
const printSession = async (prefix: string): Promise<void> =>
  console.log(prefix + JSON.stringify(Object.fromEntries(await sessions.open(cookie).entries())).slice(0, 80));
const printFailure = async (work: Promise<unknown>): Promise<void> =>
  work.then(
    () => console.log('it was stored'),
    (error: SessionDriverError) => console.log(`${error.code}: ${error.message}`),
  );

if (mount) {
  spawnSync('mount', ['-o', 'remount,ro', directory]);
  await printFailure(change('', 'user', 'ada'));
  spawnSync('mount', ['-o', 'remount,rw', directory]);
}
const cookie = await change('', 'user', 'ada');
const filler = join(directory, 'filler');
if (mount) {
  try {
    writeFileSync(filler, 'x'.repeat(2_000_000));
  } catch {
    // The file fills the disk.
  }
}
await printFailure(change(cookie, 'cart', 'x'.repeat(150_000)));
await printSession('the session is ');

if (mount) {
  rmSync(filler);
  await change(cookie, 'cart', 'x');
  await printSession('with space again: ');
}
