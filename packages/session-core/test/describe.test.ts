import { describeSession, inspectSession, isCoatcheckDriver, type SharedOptions } from '@coatcheck/session-core';
import { recordKey } from '@coatcheck/session-core/driver';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createBackend } from './support/backend.ts';
import { plainDriver } from './support/plain-driver.ts';

const ID = '6b5c3f0e-1d2a-4c3b-8a49-0f1e2d3c4b5a';
const NOW = Date.parse('2030-01-01T00:00:00Z');
const at = (seconds: number): number => NOW + seconds * 1000;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'], now: NOW });
});
afterEach(() => {
  vi.useRealTimers();
});

test.each<[title: string, options: SharedOptions, fields: Record<string, string>, expires: number | null]>([
  ['the latest expiry of its values', {}, { a: `${at(60)}:["x"]`, b: `${at(90)}:["x"]` }, at(90)],
  ['the latest expiry, in any order', {}, { a: `${at(90)}:["x"]`, b: `${at(60)}:["x"]` }, at(90)],
  ['the idle limit, if it comes first', { idleTtl: 30 }, { a: `${at(60)}:["x"]` }, at(30)],
  ['the expiry, if the idle limit comes later', { idleTtl: 300 }, { a: `${at(60)}:["x"]` }, at(60)],
  ['the idle limit of a session that never expires otherwise', { ttl: false, idleTtl: 30 }, { a: ':["x"]' }, at(30)],
  ['null, if it never expires', { ttl: false }, { a: ':["x"]' }, null],
  ['null, if the driver’s ttl counts from an unknown write', {}, { a: ':["x"]' }, null],
  ['null, also if one value has an expiry', {}, { a: ':["x"]', b: `${at(60)}:["x"]` }, null],
  ['null, also with an idle limit', { idleTtl: 30 }, { a: ':["x"]' }, null],
  ['null, if it has no values', { idleTtl: 30 }, {}, null],
  ['that of the values that are left', {}, { a: `${at(-60)}:["x"]`, b: `${at(60)}:["x"]` }, at(60)],
])('the expiry of a session is %s', async (_title, options, fields, expires) => {
  const backend = createBackend(options);
  await backend.poke(ID, fields);
  expect(await describeSession(backend.driver, ID)).toEqual({
    handle: expect.any(String),
    created: null,
    expires: expires === null ? null : new Date(expires),
  });
  expect(backend.calls).toEqual(['read']);
});

test('the handle identifies the session, and is neither its id nor a part of its key', async () => {
  const backend = createBackend();
  await backend.poke(ID, { a: ':["x"]' });
  const { handle } = (await describeSession(backend.driver, ID))!;
  expect(handle).toMatch(/^[\w-]{22}$/);
  expect(await recordKey(ID)).not.toContain(handle);
  expect((await describeSession(backend.again({ timeout: 1000 }), ID))!.handle).toBe(handle);

  const other = crypto.randomUUID();
  await backend.poke(other, { a: ':["x"]' });
  expect((await describeSession(backend.driver, other))!.handle).not.toBe(handle);
});

test('a session that does not exist, and an invalid id, are null', async () => {
  const backend = createBackend();
  expect(await describeSession(backend.driver, ID)).toBeNull();
  expect(await describeSession(backend.driver, '../../etc')).toBeNull();
  expect(backend.calls).toEqual(['read']);
});

test('a failed read rejects', async () => {
  const backend = createBackend();
  backend.before = () => {
    throw new Error('the backend is down');
  };
  await expect(describeSession(backend.driver, ID)).rejects.toMatchObject({ name: 'SessionDriverError' });
});

test('a plain driver is not supported', async () => {
  expect([createBackend().driver, plainDriver(), undefined].map(isCoatcheckDriver)).toEqual([true, false, false]);
  await expect(describeSession(plainDriver(), ID)).rejects.toThrow(TypeError);
  await expect(inspectSession(plainDriver(), ID)).rejects.toThrow(TypeError);
});

test('`inspectSession()` lists the live values with their size and expiry, in one read', async () => {
  const backend = createBackend({ idleTtl: 30 });
  await backend.poke(ID, { gone: `${at(-60)}:["x"]`, short: `${at(60)}:["é"]`, long: ':["x"]', corrupt: ':[9' });
  const session = (await inspectSession(backend.driver, ID))!;
  expect(session).toMatchObject((await describeSession(backend.driver, ID))!);
  expect(session.entries.map(({ key, bytes, expires }) => [key, bytes, expires])).toEqual([
    ['short', 6, new Date(at(60))],
    ['long', 5, null],
    ['corrupt', 2, null],
  ]);
  expect(session.entries[0]!.value()).toBe('é');
  expect(() => session.entries[2]!.value()).toThrow(SyntaxError);
  expect(backend.calls).toEqual(['read', 'read']);
});
