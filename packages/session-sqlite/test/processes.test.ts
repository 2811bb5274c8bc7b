import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { DriverStore } from '@coatcheck/session-core/driver';
import { newFolder } from '@coatcheck/test-support/folder';
import { call, change } from '@coatcheck/test-support/stores';
import { expect, it, onTestFinished } from 'vitest';
import { openStore } from '../src/store.ts';

// Several processes on one file, as in a cluster, or while a new version of a site replaces the old one.

interface Writers {
  process: ChildProcess;
  /** The fields that were acknowledged. */
  acknowledged: string[];
  /** The other results of their patches. */
  rejected: string[];
  ready: Promise<unknown>;
  ended: Promise<unknown>;
}

function startWriters(file: string, name: string, writers: number, count: number): Writers {
  const script = fileURLToPath(new URL('support/writer.ts', import.meta.url));
  const child = spawn(process.execPath, [script, file, 'key', name, String(writers), String(count)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const isReady = Promise.withResolvers<void>();
  const started: Writers = {
    process: child,
    acknowledged: [],
    rejected: [],
    ready: isReady.promise,
    ended: Promise.all([once(child, 'close'), once(child.stdout, 'close')]),
  };
  createInterface(child.stdout).on('line', (line) => {
    const [result = '', field] = line.split(' ');
    if (field === undefined) isReady.resolve();
    else if (result === 'applied') started.acknowledged.push(field);
    else started.rejected.push(result);
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  return started;
}

const newFile = (): string => join(newFolder(), 'sessions.db');

async function open(file: string): Promise<DriverStore> {
  const store = await openStore({ file }, { timeoutMs: 60_000 });
  onTestFinished(() => store.close!());
  return store;
}

const setting = (name: string) => change({ set: new Map([[name, ':1']]) });

it('64 writers in each of two processes lose no updates of one session, and readers always see a complete session', async () => {
  const file = newFile();
  // Both processes find no file and no table.
  const writers = ['one', 'other'].map((name) => startWriters(file, name, 64, 3));
  const store = await open(file);
  let running = true;
  const ended = Promise.all(writers.map((writer) => writer.ended)).then(() => (running = false));
  while (running) {
    // Reading an incomplete record would throw.
    await store.read('key', call());
    await new Promise(setImmediate);
  }
  await ended;
  expect(writers.map(({ acknowledged }) => acknowledged.length)).toEqual([192, 192]);
  const stored = await store.read('key', call());
  expect(new Set(stored!.keys())).toEqual(new Set(writers.flatMap(({ acknowledged }) => acknowledged)));
});

it('processes that are killed during writes leave a correct file, lose no acknowledged writes and block no others', async () => {
  const file = newFile();
  const store = await open(file);
  for (let round = 0; round < 3; round++) {
    const writers = ['one', 'other'].map((name) => startWriters(file, `${name}-${round}`, 4, 100_000));
    await Promise.all(writers.map(({ ready }) => ready));
    for (const writer of writers) {
      await expect.poll(() => writer.acknowledged.length).toBeGreaterThan(10);
      await pause(Math.random() * 50);
      writer.process.kill('SIGKILL');
      expect(await store.patch('key', setting(`mine-${round}`), call())).toBe('applied');
    }
    await Promise.all(writers.map(({ ended }) => ended));
    const stored = (await store.read('key', call()))!;
    const acknowledged = writers.flatMap((writer) => writer.acknowledged);
    expect(acknowledged.filter((name) => !stored.has(name))).toEqual([]);
    using database = new DatabaseSync(file);
    expect(database.prepare('PRAGMA integrity_check').all()).toEqual([{ integrity_check: 'ok' }]);
    // Starts with a small session again, because only the number of writes matters here.
    await store.patch('key', { ...setting('kept'), unset: [...stored.keys()] }, call());
  }
});

it('if the only process is killed during writes, the next one finds every acknowledged write', async () => {
  const file = newFile();
  const writers = startWriters(file, 'killed', 4, 100_000);
  await expect.poll(() => writers.acknowledged.length).toBeGreaterThan(100);
  writers.process.kill('SIGKILL');
  await writers.ended;
  const stored = (await (await open(file)).read('key', call()))!;
  expect(writers.acknowledged.filter((name) => !stored.has(name))).toEqual([]);
});

it('a session that is destroyed while other processes write into it stays destroyed', async () => {
  const file = newFile();
  const store = await open(file);
  const writers = ['one', 'other'].map((name) => startWriters(file, name, 4, 100_000));
  await expect.poll(() => writers.every(({ acknowledged }) => acknowledged.length > 10)).toBe(true);
  await store.destroy('key', 60_000, call());
  expect(await store.read('key', call())).toBeNull();
  await Promise.all(writers.map(({ ended }) => ended));
  expect(writers.map(({ rejected }) => rejected)).toEqual(writers.map(() => Array(4).fill('destroyed')));
  expect(await store.read('key', call())).toBeNull();
});

it('several connections that increment one number with `expect` lose no increments', async () => {
  const file = newFile();
  const stores = await Promise.all(Array.from({ length: 4 }, () => open(file)));
  await Promise.all(
    stores.map(async (store) => {
      for (let done = 0; done < 10;) {
        const before = (await store.read('key', call()))?.get('count') ?? null;
        const after = `:${Number(before?.slice(1) ?? 0) + 1}`;
        const increment = change({ set: new Map([['count', after]]), expect: new Map([['count', before]]) });
        if ((await store.patch('key', increment, call())) === 'applied') done++;
      }
    }),
  );
  expect((await stores[0]!.read('key', call()))!.get('count')).toBe(':40');
});
