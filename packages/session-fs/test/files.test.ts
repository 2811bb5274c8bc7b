import { spawnSync } from 'node:child_process';
import { mkdirSync, openSync, closeSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { link } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { createSessions, sweep } from '@coatcheck/session-core';
import { recordKey, valueStore, type SessionDriver } from '@coatcheck/session-core/driver';
import { fsDriver } from '@coatcheck/session-fs';
import fs from '@coatcheck/session-fs/runtime';
import { describe, expect, it } from 'vitest';
import { openFiles } from '../src/files.ts';
import { moveClock } from '@coatcheck/test-support/clock';
import { newFolder } from '@coatcheck/test-support/folder';
import { canMount, onFullDisk, type Limit } from '@coatcheck/test-support/full-disk';
import { call } from './support/call.ts';

/** All files in a folder and its subfolders, as relative paths. */
const filesIn = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();

const onlyFile = (folder: string): string => {
  const files = filesIn(folder);
  expect(files).toHaveLength(1);
  return join(folder, files[0]!);
};

const HOUR = 3_600_000;
const forAnHour = (version: unknown) => ({ ...call(), lifetimeMs: HOUR, version });

async function visit(driver: SessionDriver, values: Record<string, unknown>, ttl?: number): Promise<string> {
  const session = createSessions({ driver }).open('');
  for (const [key, value] of Object.entries(values)) session.set(key, value, ttl === undefined ? {} : { ttl });
  return (await session.commit())!.split(';')[0]!;
}

describe('the files in the folder', () => {
  it('there is one file per session, named by the hash of the id and readable only by its owner', async () => {
    const directory = join(newFolder(), 'made', 'here');
    const before = process.umask(0);
    const cookie = await visit(fs({ directory }), { user: 'ada' });
    process.umask(before);
    const file = onlyFile(directory);
    const [, id = ''] = cookie.split('=');
    expect(decodeURIComponent(basename(file))).toBe(await recordKey(id));
    expect(file).not.toContain(id);
    expect(readFileSync(file, 'utf8')).not.toContain(id);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    for (const folder of [directory, join(directory, '..'), join(file, '..')]) {
      expect(statSync(folder).mode & 0o777).toBe(0o700);
    }
  });

  it.each([
    ['overwritten', (file: string) => writeFileSync(file, 'scribble')],
    ['emptied', (file: string) => writeFileSync(file, '')],
    ['cut off', (file: string) => writeFileSync(file, readFileSync(file, 'utf8').slice(0, -3))],
    ['replaced by a folder', (file: string) => (rmSync(file), mkdirSync(file), writeFileSync(join(file, 'x'), ''))],
  ])('signing out removes a file that was %s, and leaves only a tombstone', async (_name, spoil) => {
    const directory = newFolder();
    const driver = fs({ directory });
    const cookie = await visit(driver, { user: 'ada' });
    const file = onlyFile(directory);
    spoil(file);
    const session = createSessions({ driver }).open(cookie);
    await expect(session.get('user')).rejects.toMatchObject({ code: 'refused' });
    session.destroy();
    expect(await session.commit()).toContain('Max-Age=0');
    expect(readFileSync(onlyFile(directory), 'utf8')).toMatch(/\nretired \d+$/);
    expect(await createSessions({ driver }).open(cookie).get('user')).toBeUndefined();
  });

  it.each([
    '../../../escape/',
    '/etc/',
    '..',
    '.',
    'a\\b?*"<>|',
    'näme 🧥 ',
    'x\u0000\n',
    '+after+',
    'long'.repeat(500),
  ])('no file is outside of the folder if the prefix is %j', async (prefix) => {
    const outside = newFolder();
    const directory = join(outside, 'a', 'b', 'sessions');
    const driver = fs({ directory, prefix });
    const cookie = await visit(driver, { site: prefix });
    expect(await createSessions({ driver }).open(cookie).get('site')).toBe(prefix);
    expect(
      await createSessions({ driver: fs({ directory, prefix: `${prefix}x` }) })
        .open(cookie)
        .keys(),
    ).toEqual([]);
    expect(filesIn(outside)).toEqual([expect.stringMatching(/^a\/b\/sessions\/[\da-f]{2}\/[^/]+$/)]);
  });

  it('files are spread over 256 folders', async () => {
    const directory = newFolder();
    const backend = await openFiles(directory, 5000);
    await Promise.all(Array.from({ length: 2000 }, (_, index) => backend.set(`key${index}`, 'value', forAnHour(null))));
    const sizes = readdirSync(directory).map((folder) => readdirSync(join(directory, folder)).length);
    expect(sizes.length).toBeGreaterThan(200);
    expect(Math.max(...sizes)).toBeLessThan(40);
  });
});

describe('compare-and-set', () => {
  it('replaces only the version that was read', async () => {
    const backend = await openFiles(newFolder(), 5000);
    expect(await backend.set('key', 'one', forAnHour(null))).toBe(true);
    expect(await backend.set('key', 'other', forAnHour(null))).toBe(false);
    const { version: first } = (await backend.get('key', call()))!;
    expect(await backend.set('key', 'two', forAnHour(first))).toBe(true);
    expect(await backend.set('key', 'late', forAnHour(first))).toBe(false);
    const { version: second } = (await backend.get('key', call()))!;
    expect(await backend.set('key', 'three', forAnHour(second))).toBe(true);
    expect(await backend.set('key', 'late', forAnHour(first))).toBe(false);
    expect((await backend.get('key', call()))!.value).toBe('three');
    await backend.remove('key', call());
    expect(await backend.set('key', 'late', forAnHour(second))).toBe(false);
    expect(await backend.get('key', call())).toBeNull();
  });

  it('leaves no drafts or claims behind', async () => {
    const directory = newFolder();
    const backend = await openFiles(directory, 5000);
    await backend.set('key', 'one', forAnHour(null));
    const { version } = (await backend.get('key', call()))!;
    const attempts = Array.from({ length: 10 }, (_, index) => backend.set('key', `two ${index}`, forAnHour(version)));
    expect((await Promise.all(attempts)).filter(Boolean)).toHaveLength(1);
    expect(filesIn(directory)).toHaveLength(1);
  });

  it('an aborted write is not stored', async () => {
    const directory = newFolder();
    const backend = await openFiles(directory, 5000);
    const signal = AbortSignal.abort();
    await expect(backend.set('key', 'late', { signal, lifetimeMs: HOUR, version: null })).rejects.toThrow('aborted');
    expect(filesIn(directory)).toEqual([]);
  });
});

// A process that ends during a write can leave a draft, or a draft and a claim.
describe('after a process has ended during a write', () => {
  const prepare = async () => {
    const directory = newFolder();
    const backend = await openFiles(directory, 5000);
    await backend.set('key', 'old', forAnHour(null));
    const file = onlyFile(directory);
    const version = (await backend.get('key', call()))!.version as string;
    const draft = `${file}+${'n'.repeat(16)}`;
    writeFileSync(draft, readFileSync(file, 'utf8').replace(version, 'n'.repeat(16)).replace('old', 'new'));
    return { directory, backend, file, version, draft, claim: `${file}+after+${version}` };
  };

  it('a draft has no effect, and is swept after an hour', async () => {
    const { directory, backend, draft, version } = await prepare();
    expect((await backend.get('key', call()))!.value).toBe('old');
    await backend.sweep!(10, call());
    expect(filesIn(directory)).toHaveLength(2);
    expect(await backend.set('key', 'mine', forAnHour(version))).toBe(true);
    moveClock(2 * HOUR);
    await backend.sweep!(10, call());
    expect(filesIn(directory)).not.toContain(basename(draft));
  });

  it('the next writer finishes a claimed write, and must then retry its own', async () => {
    const { directory, backend, draft, claim, version } = await prepare();
    await link(draft, claim);
    expect((await backend.get('key', call()))!.value).toBe('old');
    expect(await backend.set('key', 'mine', forAnHour(version))).toBe(false);
    const found = (await backend.get('key', call()))!;
    expect(found.value).toBe('new');
    expect(await backend.set('key', 'mine', forAnHour(found.version))).toBe(true);
    expect(filesIn(directory)).toHaveLength(1);
  });

  it('a sweep finishes a claimed write after an hour', async () => {
    const { directory, backend, draft, claim } = await prepare();
    await link(draft, claim);
    await backend.sweep!(10, call());
    expect(filesIn(directory)).toHaveLength(3);
    moveClock(2 * HOUR);
    // The value has expired by now. Whether the same sweep removes it depends on the order of the files.
    await backend.sweep!(10, call());
    await backend.sweep!(10, call());
    expect(filesIn(directory)).toEqual([]);
  });

  it('a claim on an old version has no effect', async () => {
    const { directory, backend, draft, claim, version } = await prepare();
    expect(await backend.set('key', 'mine', forAnHour(version))).toBe(true);
    await link(draft, claim);
    expect(await backend.set('key', 'late', forAnHour(version))).toBe(false);
    expect((await backend.get('key', call()))!.value).toBe('mine');
    expect(filesIn(directory)).toHaveLength(2);
  });

  it('an unfinished removal blocks an expired session for an hour at most', async () => {
    const directory = newFolder();
    const backend = await openFiles(directory, 5000);
    await backend.set('key', 'old', { ...call(), lifetimeMs: 0, version: null });
    const file = onlyFile(directory);
    const { version } = (await backend.get('key', call()))!;
    await link(file, `${file}+after+${version as string}`);
    expect(await backend.set('key', 'mine', forAnHour(version))).toBe(false);
    moveClock(2 * HOUR);
    await backend.sweep!(10, call());
    await backend.sweep!(10, call());
    expect(filesIn(directory)).toEqual([]);
  });
});

describe('sweeping', () => {
  it('harms no write, even if the clock is hours ahead of that of the file system', async () => {
    const backend = await openFiles(newFolder(), 5000);
    moveClock(2 * HOUR);
    let isWriting = true;
    const sweeping = (async () => {
      while (isWriting) await backend.sweep!(10, call());
    })();
    const keys = Array.from({ length: 300 }, (_, index) => `key ${index}`);
    for (const key of keys) expect(await backend.set(key, 'first', forAnHour(null))).toBe(true);
    for (const key of keys) {
      const { version } = (await backend.get(key, call()))!;
      expect(await backend.set(key, 'second', forAnHour(version))).toBe(true);
    }
    isWriting = false;
    await sweeping;
    for (const key of keys) expect((await backend.get(key, call()))!.value).toBe('second');
  });

  it('removes expired sessions only, up to a limit', async () => {
    const directory = newFolder();
    const driver = fs({ directory });
    const kept = await visit(driver, { user: 'ada' });
    for (let index = 0; index < 5; index++) await visit(driver, { user: index }, 60);
    writeFileSync(join(directory, 'notes.txt'), 'mine');
    moveClock(61_000);
    expect(await sweep(driver, 2)).toBe(2);
    expect(await sweep(driver)).toBe(3);
    expect(await sweep(driver)).toBe(0);
    expect(filesIn(directory)).toHaveLength(2);
    expect(await createSessions({ driver }).open(kept).get('user')).toBe('ada');
  });

  it('removes expired tombstones, and sessions that were idle for `idleTtl`', async () => {
    const directory = newFolder();
    const driver = fs({ directory, idleTtl: 30 });
    await visit(driver, { user: 'ada' });
    const session = createSessions({ driver }).open(await visit(driver, { user: 'bob' }));
    session.destroy();
    await session.commit();
    expect(filesIn(directory)).toHaveLength(2);
    moveClock(31_000);
    expect(await sweep(driver)).toBe(1);
    moveClock(60_000);
    expect(await sweep(driver)).toBe(1);
    expect(filesIn(directory)).toEqual([]);
  });

  it('writes sweep one folder from time to time', async () => {
    const directory = newFolder();
    const backend = await openFiles(directory, 5000);
    const store = (key: string) => backend.set(key, 'value', { ...call(), lifetimeMs: 1000, version: null });
    await Promise.all(Array.from({ length: 20 }, (_, index) => store(`old${index}`)));
    const old = () => filesIn(directory).filter((file) => file.includes('old')).length;
    moveClock(5000);
    await store('soon');
    expect(old()).toBe(20);
    for (let index = 0; index < 300 && old() > 0; index++) {
      moveClock(11_000);
      await store(`new${index}`);
    }
    await expect.poll(old).toBe(0);
  });

  it('does not remove a session that is renewed concurrently', async () => {
    const backend = await openFiles(newFolder(), 5000);
    for (let round = 0; round < 200; round++) {
      await backend.set('key', 'old', { ...call(), lifetimeMs: 0, version: null });
      const { version } = (await backend.get('key', call()))!;
      const [stored] = await Promise.all([backend.set('key', 'new', forAnHour(version)), backend.sweep!(10, call())]);
      const found = await backend.get('key', call());
      expect(found?.value ?? null).toBe(stored ? 'new' : null);
      await backend.remove('key', call());
    }
  });
});

it('`idleTtl`: reads extend a session, and it expires without them', async () => {
  const driver = fs({ directory: newFolder(), idleTtl: 30 });
  const sessions = createSessions({ driver });
  const cookie = await visit(driver, { user: 'ada' });
  for (let round = 0; round < 3; round++) {
    moveClock(20_000);
    expect(await sessions.open(cookie).get('user')).toBe('ada');
  }
  moveClock(31_000);
  expect(await sessions.open(cookie).get('user')).toBeUndefined();
});

describe('a folder that cannot be used', () => {
  it('a file in its place causes an error at once, for reads as well', async () => {
    const directory = join(newFolder(), 'sessions');
    writeFileSync(directory, '');
    const driver = fs({ directory });
    const expected = { driver: 'session-fs', code: 'configuration', message: expect.stringContaining('`directory`') };
    await expect(driver.getItem(crypto.randomUUID())).rejects.toMatchObject({ ...expected, operation: 'read' });
    await expect(visit(driver, { user: 'ada' })).rejects.toMatchObject({ ...expected, operation: 'patch' });
    rmSync(directory);
    await visit(driver, { user: 'ada' });
  });

  it('a folder that is deleted while the server runs is created again', async () => {
    const directory = join(newFolder(), 'sessions');
    const driver = fs({ directory });
    const cookie = await visit(driver, { user: 'ada' });
    rmSync(directory, { recursive: true });
    expect(await createSessions({ driver }).open(cookie).get('user')).toBeUndefined();
    await visit(driver, { user: 'ada' });
  });

  it('an unreadable file causes an error that names it, not a missing session', async () => {
    const directory = newFolder();
    const driver = fs({ directory });
    const cookie = await visit(driver, { user: 'ada' });
    const file = onlyFile(directory);
    const whole = readFileSync(file, 'utf8');
    for (const text of ['', whole.slice(0, 10), whole.slice(0, -1), '{"user":"bob"}']) {
      writeFileSync(file, text);
      await expect(createSessions({ driver }).open(cookie).get('user')).rejects.toMatchObject({
        code: 'refused',
        message: expect.stringContaining(`${file} is not a session`),
      });
    }
    writeFileSync(file, whole);
    expect(await createSessions({ driver }).open(cookie).get('user')).toBe('ada');
  });

  it('a disk that does not answer causes an error at the deadline', async () => {
    const directory = newFolder();
    const driver = fs({ directory, timeout: 300 });
    const cookie = await visit(fs({ directory }), { user: 'ada' });
    const file = onlyFile(directory);
    // Opening a pipe without a writer never returns, like a disconnected network disk.
    rmSync(file);
    spawnSync('mkfifo', [file]);
    await expect(createSessions({ driver }).open(cookie).get('user')).rejects.toMatchObject({ code: 'timeout' });
    closeSync(openSync(file, 'r+'));
  });
});

describe('a full disk', () => {
  const runtime = new URL('../dist/runtime.js', import.meta.url).href;
  const run = (limit: Limit) => onFullDisk(runtime, (directory) => ({ directory: join(directory, 'sessions') }), limit);
  const intact = 'the session is {"user":"ada"}';

  it('refuses a write if the file size is limited', () => {
    expect(run({ fileKb: 16 })).toEqual([
      expect.stringMatching(/^refused: \[session-fs\] There is no space .*\(EFBIG\).* Free space/),
      intact,
      'no file is left over',
    ]);
  });

  it('refuses writes if a real disk is full or read-only', ({ skip }) => {
    if (!canMount()) skip('this system does not allow `unshare -rm mount`');
    expect(run('disk')).toEqual([
      expect.stringMatching(/^configuration: \[session-fs\] .*is not a directory that this process can read and write/),
      expect.stringMatching(/^refused: \[session-fs\] There is no space .*\(ENOSPC\).* Free space/),
      intact,
      'no file is left over',
      'with space again: {"user":"ada","cart":"x"}',
      expect.stringMatching(/^configuration: \[session-fs\] .*\(EROFS\)/),
      'the session is {"user":"ada","cart":"x"}',
    ]);
  });
});

it('fsDriver() validates its options, and does not resolve the directory', () => {
  expect(fsDriver()).toMatchObject({ config: {} });
  expect(fsDriver({ directory: 'data/sessions' })).toMatchObject({ config: { directory: 'data/sessions' } });
  // @ts-expect-error a wrong option is also a compile error
  expect(() => fsDriver({ base: 'data' })).toThrow(/`base` is not an option\. Options: prefix, .*, directory/);
  expect(() => fsDriver({ directory: '' })).toThrow('`directory`: expected a non-empty string');
});

it('two backends on one folder share their sessions', async () => {
  const directory = newFolder();
  const [one, other] = [valueStore(await openFiles(directory, 5000)), valueStore(await openFiles(directory, 5000))];
  await one.patch('key', { set: new Map([['a', ':1']]), unset: [], lifetimeMs: HOUR, now: Date.now() }, call());
  expect(await other.read('key', call())).toEqual(new Map([['a', ':1']]));
});
