import { cloudflareKvDriver } from '@coatcheck/session-cloudflare-kv';
import cloudflareKv from '@coatcheck/session-cloudflare-kv/runtime';
import { expect, it } from 'vitest';
import { startKv } from './support/kv.ts';

it('the config function checks its options at once', () => {
  expect(cloudflareKvDriver({ namespace: 'CARTS' })).toMatchObject({ config: { namespace: 'CARTS' } });
  // @ts-expect-error The name that Astro's adapter overwrites.
  expect(() => cloudflareKvDriver({ binding: 'CARTS' })).toThrow('`binding` is not an option');
  expect(() => cloudflareKvDriver({ namespace: '' })).toThrow('`namespace`: expected a non-empty string');
  // @ts-expect-error A binding does not survive the build.
  expect(() => cloudflareKvDriver({ namespace: new Map() })).toThrow('does not survive the build');
});

it('outside of a Worker it says where it can run', async () => {
  await expect(cloudflareKv().getItem(crypto.randomUUID())).rejects.toMatchObject({
    code: 'configuration',
    message: expect.stringContaining('This is not a Cloudflare Worker'),
  });
});

it('refuses `idleTtl`, which KV cannot do', async () => {
  await using kv = await startKv('SESSION');
  const namespace = kv.namespaces['SESSION']!;
  await expect(cloudflareKv({ namespace, idleTtl: 60 }).getItem(crypto.randomUUID())).rejects.toMatchObject({
    code: 'configuration',
    message: expect.stringContaining('`idleTtl` needs a backend whose changes are atomic'),
  });
});

it('takes what stands for a binding in Node, each for itself', async () => {
  await using kv = await startKv('ONE', 'OTHER');
  const { ONE: one, OTHER: other } = kv.namespaces;
  const id = crypto.randomUUID();
  await cloudflareKv({ namespace: one! }).setItem(id, '[["Map",1,2],"user",{"data":3,"expires":-1},"ada"]');
  expect(await cloudflareKv({ namespace: one! }).getItem(id)).not.toBeNull();
  expect(await cloudflareKv({ namespace: other! }).getItem(id)).toBeNull();
});
