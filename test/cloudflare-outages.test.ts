import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { d1, durableObjects, startCloudflareSite, type CloudflareSite } from './faults/cloudflare.ts';

// Outages of Cloudflare's services under a driver that runs in a Worker. `pnpm faults` causes more of them, and measures.

/** A deadline that does not pass. */
const LONG_MS = 60_000;

describe.each([
  ['D1', d1],
  ['Durable Objects', durableObjects],
])('%s', (_name, service) => {
  let started: CloudflareSite;
  let cookie: string;
  beforeAll(async () => {
    started = await startCloudflareSite(service, LONG_MS);
    ({ cookie } = await started.site.enter());
  });
  afterAll(() => started?.[Symbol.asyncDispose]());

  it('during a restart, a write fails, a read waits, and nothing is lost', async () => {
    const { site } = started;
    await site.write(cookie, 'before');
    await started.kill();
    await expect(site.write(cookie, 'during')).rejects.toMatchObject({ code: 'interrupted' });
    const reading = site.read(cookie);
    await started.restart();
    expect(await reading).toBe(1);
    await site.write(cookie, 'after');
    expect((await site.keys(cookie)).sort()).toEqual(['after', 'before', 'entered']);
  });

  it('a write whose reply is lost may have been stored, and its error says so', async () => {
    const { site, proxy } = started;
    await proxy.cut(1);
    await expect(site.write(cookie, 'unanswered')).rejects.toMatchObject({
      code: 'interrupted',
      message: expect.stringContaining('It may have been stored; it is not sent again.'),
    });
    await proxy.pass();
    expect(await site.keys(cookie)).toContain('unanswered');
  });
});
