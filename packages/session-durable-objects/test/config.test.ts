import { durableObjectsDriver } from '@coatcheck/session-durable-objects';
import durableObjects from '@coatcheck/session-durable-objects/runtime';
import { expect, it } from 'vitest';
import { cleanUp } from '../src/record.ts';
import { startNamespace } from './support/objects.ts';

it('durableObjectsDriver() validates its options', () => {
  const config = { namespace: 'CARTS', locationHint: 'weur', jurisdiction: 'eu' };
  expect(durableObjectsDriver(config)).toMatchObject({ config });
  // @ts-expect-error Astro's adapter overwrites an option of this name.
  expect(() => durableObjectsDriver({ binding: 'CARTS' })).toThrow('`binding` is not an option');
  expect(() => durableObjectsDriver({ namespace: '' })).toThrow('`namespace`: expected a non-empty string');
  // @ts-expect-error A binding cannot be part of the build.
  expect(() => durableObjectsDriver({ client: { idFromName() {}, get() {} } })).toThrow('does not survive the build');
});

it('outside of a Worker, the error says where the driver can run', async () => {
  await expect(durableObjects().getItem(crypto.randomUUID())).rejects.toMatchObject({
    code: 'configuration',
    message: expect.stringContaining('This is not a Cloudflare Worker'),
  });
});

it('`client` must be a Durable Object binding', async () => {
  // @ts-expect-error A KV binding.
  await expect(durableObjects({ client: { get() {}, put() {} } }).getItem(crypto.randomUUID())).rejects.toMatchObject({
    code: 'configuration',
    message: expect.stringContaining('`client`: expected a Durable Object binding'),
  });
});

it('accepts a replacement for a binding in Node', async () => {
  await using objects = await startNamespace();
  const id = crypto.randomUUID();
  const driver = durableObjects({ client: objects.namespace });
  await driver.setItem(id, '[["Map",1,2],"user",{"data":3,"expires":-1},"ada"]');
  expect(JSON.stringify(await driver.getItem(id))).toContain('ada');
  await driver.removeItem(id);
  expect(await driver.getItem(id)).toBeNull();
});

it('a jurisdiction that Cloudflare does not accept is an error that says so', async () => {
  await using objects = await startNamespace();
  const driver = durableObjects({ client: objects.namespace, jurisdiction: 'moon' });
  await expect(driver.getItem(crypto.randomUUID())).rejects.toMatchObject({
    code: 'configuration',
    message: expect.stringContaining('`jurisdiction`'),
  });
});

it('a jurisdiction is part of the namespace', async () => {
  const asked: string[] = [];
  const stub = { operate: async () => null };
  const inEurope = { idFromName: () => ({}), get: () => stub, jurisdiction: () => inEurope };
  const client = { ...inEurope, jurisdiction: (name: string) => (asked.push(name), inEurope), get: () => undefined };
  expect(await durableObjects({ client, jurisdiction: 'eu' }).getItem(crypto.randomUUID())).toBeNull();
  expect(asked).toEqual(['eu']);
});

it('a location that Cloudflare does not accept is an error that says so, and nothing was written', async () => {
  const refuse = () => {
    throw new TypeError('Invalid locationHint.');
  };
  const client = { idFromName: () => ({}), get: refuse, jurisdiction: () => client };
  const driver = durableObjects({ client, locationHint: 'moon' });
  const id = crypto.randomUUID();
  const rejection = { code: 'configuration', message: expect.stringContaining('`locationHint`') };
  await expect(driver.getItem(id)).rejects.toMatchObject(rejection);
  await expect(driver.removeItem(id)).rejects.toMatchObject(rejection);
});

it('if an object cannot be emptied, its alarm is set again', async () => {
  const alarms: number[] = [];
  const storage = {
    kv: { get: () => ({ version: 1, record: null, until: 0, alarmAt: 0 }), put: () => undefined },
    setAlarm: async (time: number) => void alarms.push(time),
    deleteAlarm: async () => undefined,
    deleteAll: async () => Promise.reject(new Error('The storage failed.')),
  };
  await cleanUp(storage);
  expect(alarms).toHaveLength(1);
});
