import { durableObjectsDriver } from '@coatcheck/session-durable-objects';
import durableObjects from '@coatcheck/session-durable-objects/runtime';
import { expect, it } from 'vitest';

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
