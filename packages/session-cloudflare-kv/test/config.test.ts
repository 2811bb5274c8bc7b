import { cloudflareKvDriver } from '@coatcheck/session-cloudflare-kv';
import cloudflareKv from '@coatcheck/session-cloudflare-kv/runtime';
import { expect, it } from 'vitest';
import { startKv } from './support/kv.ts';

it('cloudflareKvDriver() validates its options', () => {
  expect(cloudflareKvDriver({ namespace: 'CARTS' })).toMatchObject({ config: { namespace: 'CARTS' } });
  // @ts-expect-error Astro's adapter overwrites an option of this name.
  expect(() => cloudflareKvDriver({ binding: 'CARTS' })).toThrow('`binding` is not an option');
  expect(() => cloudflareKvDriver({ namespace: '' })).toThrow('`namespace`: expected a non-empty string');
  // @ts-expect-error A binding cannot be part of the build.
  expect(() => cloudflareKvDriver({ client: new Map() })).toThrow('does not survive the build');
});

it('outside of a Worker, the error says where the driver can run', async () => {
  await expect(cloudflareKv().getItem(crypto.randomUUID())).rejects.toMatchObject({
    code: 'configuration',
    message: expect.stringContaining('This is not a Cloudflare Worker'),
  });
});

it('refuses `idleTtl`, which KV cannot support', async () => {
  await using kv = await startKv('SESSION');
  const client = kv.namespaces['SESSION']!;
  await expect(cloudflareKv({ client, idleTtl: 60 }).getItem(crypto.randomUUID())).rejects.toMatchObject({
    code: 'configuration',
    message: expect.stringContaining('`idleTtl` needs a backend whose changes are atomic'),
  });
});

it('accepts a replacement for a binding in Node, and keeps two of them separate', async () => {
  await using kv = await startKv('ONE', 'OTHER');
  const { ONE: one, OTHER: other } = kv.namespaces;
  const id = crypto.randomUUID();
  await cloudflareKv({ client: one! }).setItem(id, '[["Map",1,2],"user",{"data":3,"expires":-1},"ada"]');
  expect(await cloudflareKv({ client: one! }).getItem(id)).not.toBeNull();
  expect(await cloudflareKv({ client: other! }).getItem(id)).toBeNull();
});
