import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { createSessions } from '@coatcheck/session-core';
import type { SessionDriver } from '@coatcheck/session-core/driver';
import libsql from '@coatcheck/session-libsql/runtime';
import { newFolder } from '@coatcheck/test-support/folder';
import { visitsOn } from '@coatcheck/test-support/visits';
import { createClient, type Client } from '@libsql/client';
import { afterAll, beforeAll, beforeEach, expect, it, onTestFinished } from 'vitest';
import { startSqld, type Sqld } from './support/sqld.ts';

// A client of the app with `syncUrl`: an embedded replica.

let server: Sqld;
let primary: SessionDriver;
let client: Client;
let replica: SessionDriver;
beforeAll(async () => {
  server = await startSqld();
});
afterAll(() => server?.[Symbol.asyncDispose]());
beforeEach(() => {
  const { url: syncUrl, authToken } = server;
  primary = libsql({ url: syncUrl, authToken });
  client = createClient({ url: pathToFileURL(join(newFolder(), 'replica.db')).href, syncUrl, authToken });
  onTestFinished(() => client.close());
  replica = libsql({ client });
});

const { visit, signIn, userOf } = visitsOn(() => replica);
const signOut = (on: SessionDriver, cookie: string) => visit((session) => session.destroy(), cookie, on);

it('its own changes are on the primary, and it reads them at once', async () => {
  const cookie = await signIn(replica);
  expect(await userOf(cookie, replica)).toBe('ada');
  expect(await userOf(cookie, primary)).toBe('ada');
  await signOut(replica, cookie);
  expect(await userOf(cookie, replica)).toBeUndefined();
  expect(await userOf(cookie, primary)).toBeUndefined();
});

it('a sign-out on another server is seen after the next sync, and at once with `idleTtl`', async () => {
  const cookie = await signIn(replica);
  await signOut(primary, cookie);
  expect(await userOf(cookie, replica)).toBe('ada');
  expect(await userOf(cookie, libsql({ client, idleTtl: 3600 }))).toBeUndefined();

  const other = await signIn(replica);
  await signOut(primary, other);
  await client.sync();
  expect(await userOf(other, replica)).toBeUndefined();
});

it('a change of a session that was destroyed on another server is rejected, although the replica still has it', async () => {
  const cookie = await signIn(replica);
  await signOut(primary, cookie);
  await visit((session) => session.set('cart', 1), cookie);
  expect(await userOf(cookie, primary)).toBeUndefined();
  expect(await userOf(cookie, replica)).toBeUndefined();
});

it('concurrent changes there and on the primary lose no updates', async () => {
  const cookie = await signIn(replica);
  const changes = Array.from({ length: 32 }, (_, index) =>
    visit((session) => session.set(`key${index}`, index), cookie, index % 2 ? primary : replica),
  );
  await Promise.all(changes);
  expect(await createSessions({ driver: primary }).open(cookie).keys()).toHaveLength(33);
});

it('while the primary is away, it is read, and a change says that nothing was sent', async () => {
  const cookie = await signIn(replica);
  await server.kill();
  try {
    expect(await userOf(cookie, replica)).toBe('ada');
    const writing = visit((session) => session.set('cart', 1), cookie, libsql({ client, timeout: 300 }));
    await expect(writing).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/error trying to connect: .*Connection refused.*Nothing was sent/),
    });
  } finally {
    await server.restart();
  }
  await visit((session) => session.set('cart', 1), cookie);
});

it('an error of the primary is the error of the change', async () => {
  const cookie = await signIn(replica);
  await server.query(`CREATE TRIGGER broken BEFORE UPDATE ON coatcheck_sessions BEGIN SELECT RAISE(ABORT, 'no'); END`);
  try {
    const writing = visit((session) => session.set('cart', 1), cookie);
    await expect(writing).rejects.toMatchObject({ code: 'refused', operation: 'patch' });
  } finally {
    await server.query('DROP TRIGGER broken');
  }
  expect(await createSessions({ driver: primary }).open(cookie).keys()).toEqual(['user']);
});
