import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { valueStore, type Change } from '@coatcheck/session-core/driver';
import { expect, it, onTestFinished } from 'vitest';
import { openFiles } from '../src/files.ts';
import { newFolder } from '@coatcheck/test-support/folder';
import { call } from './support/call.ts';

// Several processes on one folder, as in a cluster, or while a new version of a site replaces the old one.

interface Writer {
  process: ChildProcess;
  /** The fields that were acknowledged. */
  acknowledged: string[];
  /** The result of its last patch. */
  last: string;
  ready: Promise<unknown>;
  ended: Promise<unknown>;
}

function startWriter(directory: string, key: string, name: string, count: number): Writer {
  const script = fileURLToPath(new URL('support/writer.ts', import.meta.url));
  const child = spawn(process.execPath, [script, directory, key, name, String(count)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const isReady = Promise.withResolvers<void>();
  const writer: Writer = {
    process: child,
    acknowledged: [],
    last: '',
    ready: isReady.promise,
    ended: Promise.all([once(child, 'close'), once(child.stdout, 'close')]),
  };
  createInterface(child.stdout).on('line', (line) => {
    const [result = '', field] = line.split(' ');
    if (field === undefined) isReady.resolve();
    else writer.last = result;
    if (result === 'applied') writer.acknowledged.push(field!);
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  return writer;
}

const names = Array.from({ length: 4 }, (_, index) => `writer${index}`);
const setting = (name: string): Change => ({
  set: new Map([[name, ':1']]),
  unset: [],
  lifetimeMs: 3_600_000,
  defaultTtlMs: 3_600_000,
  now: Date.now(),
});

it('four processes write into one session without lost updates, and readers always see a complete session', async () => {
  const directory = newFolder();
  const store = valueStore(await openFiles(directory, 60_000));
  const writers = names.map((name) => startWriter(directory, 'key', name, 50));
  let running = true;
  const ended = Promise.all(writers.map((writer) => writer.ended)).then(() => (running = false));
  // Reading an incomplete value would throw.
  while (running) await store.read('key', call());
  await ended;
  expect(writers.map(({ acknowledged }) => acknowledged.length)).toEqual([50, 50, 50, 50]);
  const stored = await store.read('key', call());
  expect(new Set(stored!.keys())).toEqual(new Set(writers.flatMap(({ acknowledged }) => acknowledged)));
});

it('processes that are killed during writes leave complete values, lose no acknowledged writes and block no others', async () => {
  const directory = newFolder();
  const store = valueStore(await openFiles(directory, 60_000));
  const acknowledged: string[] = [];
  for (let round = 0; round < 3; round++) {
    const writers = names.map((name) => startWriter(directory, 'key', `${name}-${round}`, 100_000));
    await Promise.all(writers.map(({ ready }) => ready));
    for (const writer of writers) {
      await pause(Math.random() * 150);
      writer.process.kill('SIGKILL');
      expect(await store.patch('key', setting(`mine-${round}`), call())).toBe('applied');
    }
    await Promise.all(writers.map(({ ended }) => ended));
    acknowledged.push(...writers.flatMap((writer) => writer.acknowledged));
    const stored = (await store.read('key', call()))!;
    expect(acknowledged.filter((name) => !stored.has(name))).toEqual([]);
    // Starts with a small session again, because only the number of writes matters here.
    await store.patch('key', { ...setting('kept'), unset: [...stored.keys()] }, call());
    acknowledged.length = 0;
  }
});

it('a session that is destroyed while other processes write into it stays destroyed', async () => {
  const directory = newFolder();
  const store = valueStore(await openFiles(directory, 60_000));
  const writers = names.map((name) => startWriter(directory, 'key', name, 100_000));
  await expect.poll(() => writers.every(({ acknowledged }) => acknowledged.length > 2)).toBe(true);
  await store.destroy('key', 60_000, call());
  expect(await store.read('key', call())).toBeNull();
  await Promise.all(writers.map(({ ended }) => ended));
  expect(writers.map(({ last }) => last)).toEqual(names.map(() => 'destroyed'));
  expect(await store.read('key', call())).toBeNull();
});

it('several processes that increment one number with `expect` lose no increments', async () => {
  const directory = newFolder();
  const stores = await Promise.all(
    Array.from({ length: 4 }, async () => valueStore(await openFiles(directory, 60_000))),
  );
  await Promise.all(
    stores.map(async (store) => {
      for (let done = 0; done < 10;) {
        const before = (await store.read('key', call()))?.get('count') ?? null;
        const after = `:${Number(before?.slice(1) ?? 0) + 1}`;
        const change = { ...setting('count'), set: new Map([['count', after]]), expect: new Map([['count', before]]) };
        if ((await store.patch('key', change, call())) === 'applied') done++;
      }
    }),
  );
  expect((await stores[0]!.read('key', call()))!.get('count')).toBe(':40');
});
