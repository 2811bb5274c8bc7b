// Fills a disk, and prints what happens to a session:
//   node meet-full-disk.ts <module of a driver's runtime> <its options> <directory> [mount]
// With `mount`, the directory becomes a small disk, which the script also makes read-only.
import { spawnSync } from 'node:child_process';
import { globSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createSessions, type SessionDriver, type SessionDriverError } from '@coatcheck/session-core';

const [runtime = '', options = '', directory = '', mount] = process.argv.slice(2);
const remount = (as: 'ro' | 'rw') => spawnSync('mount', ['-o', `remount,${as}`, directory]);
if (mount) spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', directory]);

const { default: driver } = (await import(runtime)) as { default: (options: object) => SessionDriver };
const sessions = createSessions({ driver: driver(JSON.parse(options) as object) });

const change = async (cookie: string, key: string, value: string): Promise<string> => {
  const session = sessions.open(cookie);
  session.set(key, value);
  return (await session.commit())?.split(';')[0] ?? cookie;
};
const printSession = async (before: string): Promise<void> =>
  console.log(before + JSON.stringify(Object.fromEntries(await sessions.open(cookie).entries())).slice(0, 80));
const printResult = (work: Promise<unknown>): Promise<void> =>
  work.then(
    () => console.log('it was stored'),
    (error: SessionDriverError) => console.log(`${error.code}: ${error.message}`),
  );
const countFiles = (): number => globSync('**/*', { cwd: directory }).length;

if (mount) {
  remount('ro');
  await printResult(change('', 'user', 'ada'));
  remount('rw');
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
const files = countFiles();
await printResult(change(cookie, 'cart', 'x'.repeat(150_000)));
await printSession('the session is ');
console.log(countFiles() === files ? 'no file is left over' : 'a file is left over');

if (mount) {
  rmSync(filler);
  await change(cookie, 'cart', 'x');
  await printSession('with space again: ');
  // Linux refuses this while a file is open for writing.
  if (remount('ro').status === 0) {
    await printResult(change(cookie, 'user', 'bob'));
    await printSession('the session is ');
  }
}
