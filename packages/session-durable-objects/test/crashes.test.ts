import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { workerds } from '@coatcheck/test-support/workerds';
import { expect, it, onTestFinished } from 'vitest';
import { ask } from './support/browser.ts';
import { startObjects, type Isolate } from './support/objects.ts';

const WRITERS = 8;
const HOUR = 3_600_000;
const KEY = 'session:of-the-test';

async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'coatcheck-objects-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** One change: two fields that belong together. */
function patch(at: Isolate, name: string): Promise<{ status: number; body: unknown }> {
  const set = new Map([
    [`${name}-a`, ':["x"]'],
    [`${name}-b`, ':["x"]'],
  ]);
  const change = { set, unset: [], lifetimeMs: HOUR, defaultTtlMs: HOUR, now: Date.now() };
  return ask(at, `/patch?key=${KEY}`, change);
}

const read = async (at: Isolate): Promise<string[]> => {
  const { body } = await ask(at, `/read?key=${KEY}`);
  return Object.keys(body ?? {});
};

/** Each change is complete or absent, and each acknowledged one is there. */
function expectComplete(fields: string[], acknowledged: string[]): void {
  const names = new Set(fields.map((field) => field.slice(0, -2)));
  expect(fields.sort()).toEqual([...names].flatMap((name) => [`${name}-a`, `${name}-b`]).sort());
  expect([...names]).toEqual(expect.arrayContaining(acknowledged));
}

it('if workerd is killed during writes, each acknowledged change is stored, and none is half', async () => {
  const persist = await temporaryFolder();
  const acknowledged: string[] = [];
  for (let round = 0; round < 4; round++) {
    const { all, ...isolates } = await startObjects('sessions.ts', { persist });
    const [at] = all as [Isolate];
    expectComplete(await read(at), acknowledged);
    const before = acknowledged.length;
    let killed = false;
    const writing = Array.from({ length: WRITERS }, async (_, writer) => {
      for (let count = 0; !killed; count++) {
        const name = `${round}-${writer}-${count}`;
        const { body } = await patch(at, name);
        if (body === 'applied') acknowledged.push(name);
      }
    });
    // A writer ends with the connection that it loses.
    const ended = Promise.allSettled(writing);
    await expect.poll(() => acknowledged.length).toBeGreaterThan(before + 20);
    const pids = workerds();
    expect(pids).toHaveLength(1);
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    killed = true;
    await ended;
    await Promise.allSettled([isolates[Symbol.asyncDispose]()]);
  }
  await using restarted = await startObjects('sessions.ts', { persist });
  expectComplete(await read(restarted.all[0]!), acknowledged);
});

it('sessions survive a restart, and an alarm that was due in between removes everything', async () => {
  const persist = await temporaryFolder();
  const now = Date.now();
  {
    await using before = await startObjects('sessions.ts', { persist });
    await patch(before.all[0]!, 'kept');
    const short = { set: new Map([['x', ':["x"]']]), unset: [], lifetimeMs: 1000, defaultTtlMs: 1000, now };
    await ask(before.all[0]!, `/patch?key=short`, short);
  }
  await using after = await startObjects('sessions.ts', { persist });
  expect(await read(after.all[0]!)).toEqual(['kept-a', 'kept-b']);
  const contents = async (): Promise<unknown> => (await ask(after.all[0]!, `/contents?key=short`)).body;
  await expect.poll(contents).toEqual({ tables: [], alarm: null });
});
