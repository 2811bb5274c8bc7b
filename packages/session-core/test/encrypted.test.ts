import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { createSessions } from '@coatcheck/session-core';
import { recordKey, type SharedOptions } from '@coatcheck/session-core/driver';
import fc from 'fast-check';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { createBackend, createBrowser, type Backend, type Browser } from './support/backend.ts';
import { codePoint } from './support/values.ts';
import { encrypted } from '../src/codec/encrypted.ts';
import { type FieldCodecs, plaintext, toSession } from '../src/codec/field-codec.ts';

const secret = 'yF3kq0Vn7bT2xW9sLr5dQh8mZc1aPu4eGj6o';
const next = 'Kd8sN1vB4mQ7zX2cL5hR9tY3wE6rU0iOpAfJ';

const when = new Date(1e12);
const data = { user: { name: 'Ada', since: when }, cart: ['hat', 'coat'], flash: 'hello' };

function listen(event: string): unknown[] {
  const seen: unknown[] = [];
  const listener = (message: unknown) => void seen.push(message);
  subscribe(`coatcheck:${event}`, listener);
  onTestFinished(() => void unsubscribe(`coatcheck:${event}`, listener));
  return seen;
}

/** Starts a site with one visitor. `deploy` starts it again with other options, on the same backend. */
async function startSite(config: SharedOptions) {
  const backend = createBackend(config);
  const browser = createBrowser(createSessions({ driver: backend.driver }));
  await browser.visit((session) => {
    for (const [key, value] of Object.entries(data)) session.set(key, value);
  });
  const deploy = (options: SharedOptions) =>
    createBrowser(createSessions({ driver: backend.again(options) }), browser.cookie);
  const stored = async () => (await backend.peek(browser.id)) ?? new Map<string, string>();
  return { backend, browser, deploy, stored };
}

const all = (browser: Browser<Record<string, unknown>>) =>
  browser.visit(async (session) => Object.fromEntries(await session.entries()));

afterEach(() => void vi.useRealTimers());

describe('encrypted data', () => {
  it('can be read, changed, added and deleted like plaintext data', async () => {
    const { browser } = await startSite({ secrets: [secret] });
    expect(await all(browser)).toEqual(data);
    await browser.visit(async (session) => {
      session.set('cart', []);
      session.delete('flash');
      session.set('more', 1n);
    });
    expect(await all(browser)).toEqual({ user: data.user, cart: [], more: 1n });
    expect(await browser.visit((session) => session.update('visits', (count = 0) => (count as number) + 1))).toBe(1);
    expect(await browser.visit((session) => session.update('visits', (count = 0) => (count as number) + 1))).toBe(2);
  });

  it('shows neither keys nor values, and gives the same key another name in each session', async () => {
    const one = await startSite({ secrets: [secret] });
    const text = [...(await one.stored())].flat().join(' ');
    for (const word of ['user', 'Ada', 'cart', 'hat', 'flash', 'hello', secret]) expect(text).not.toContain(word);
    const other = createBrowser(createSessions({ driver: one.backend.driver }));
    await other.visit((session) => session.set('user', data.user));
    const names = [...((await one.backend.peek(other.id)) ?? new Map<string, string>()).keys()];
    expect(names).toHaveLength(1);
    expect(await one.stored()).not.toHaveProperty(names[0]!);
    for (const name of (await one.stored()).keys()) expect(names).not.toContain(name);
  });

  it('stays the same string when the same value is set again', async () => {
    const { backend, browser, stored } = await startSite({ secrets: [secret] });
    const before = await stored();
    backend.calls = [];
    await browser.visit(async (session) => {
      await session.get('user');
      session.set('cart', data.cart);
    });
    expect(backend.calls).toEqual(['read']);
    await browser.visit((session) => session.set('cart', data.cart));
    expect(await stored()).toEqual(before);
  });

  it('expires like plaintext data', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    const { browser } = await startSite({ secrets: [secret] });
    await browser.visit((session) => session.set('short', 1, { ttl: 10 }));
    vi.setSystemTime(Date.now() + 11_000);
    expect(await all(browser)).toEqual(data);
  });

  it('round-trips for any key and value', () => {
    const field = fc
      .tuple(fc.option(fc.nat(), { nil: '' }), fc.string({ unit: codePoint }))
      .map(([at, body]) => `${at}:${body}`);
    fc.assert(
      fc.property(fc.string({ unit: codePoint, minLength: 1 }), field, fc.string(), (key, value, record) => {
        const codec = encrypted(secret, record);
        const stored = codec.value(key, value);
        expect(codec.value(key, value)).toBe(stored);
        expect(codec.read(codec.name(key), stored)).toEqual([key, value]);
        expect(stored.slice(0, stored.indexOf(':'))).toBe(value.slice(0, value.indexOf(':')));
        expect(codec.name(key)).toMatch(/^~[\w-]{28}$/);
      }),
      { numRuns: 300 },
    );
  });
});

describe('a field that was tampered with', () => {
  const record = 'session:852sbLq6U14sIHzQzY8VSXQiPISPcn-Ys1ZM6labQc8';
  const codec = encrypted(secret, record);
  const field = '1700000000000:["a value"]';
  const [name, value] = [codec.name('user'), codec.value('user', field)];

  it('is never decrypted when one character was changed, whichever it is', () => {
    for (let index = 0; index < value.length; index++) {
      const altered = value.slice(0, index) + (value.charAt(index) === 'A' ? 'B' : 'A') + value.slice(index + 1);
      // Some bits of the last character are unused, so changing only these is harmless.
      const harmless = index === value.length - 1 ? [undefined, ['user', field]] : [undefined];
      expect(harmless).toContainEqual(codec.read(name, altered));
    }
  });

  it.each([
    ['truncated', name, value.slice(0, -1)],
    ['truncated to its nonce', name, value.slice(0, 14 + 16)],
    ['truncated to nothing', name, ''],
    ['extended', name, `${value}AAAA`],
    ['given another expiry', name, `1800000000000${value.slice(13)}`],
    ['given no expiry', name, value.slice(13)],
    ['moved to the name of another key', codec.name('admin'), value],
    ['replaced with invalid base64url', name, '1700000000000:***'],
  ])('is not decrypted when it was %s', (_what, at, altered) => {
    expect(codec.read(name, value)).toEqual(['user', field]);
    expect(codec.read(at, altered)).toBeUndefined();
  });

  it('is not decrypted in another record or with another secret', () => {
    const elsewhere = encrypted(secret, 'session:another');
    expect(elsewhere.read(name, value)).toBeUndefined();
    expect(elsewhere.read(elsewhere.name('user'), value)).toBeUndefined();
    const other = encrypted(next, record);
    expect(other.read(name, value)).toBeUndefined();
    expect(other.read(other.name('user'), value)).toBeUndefined();
  });

  it.each([
    ['altered', (text: string) => text.replace(/.{4}$/, 'AAAA')],
    ['truncated', (text: string) => text.slice(0, 20)],
    ['replaced with plaintext', () => ':["mallory"]'],
  ])('is left out and reported when it was %s, and the rest of the session is kept', async (_what, tamper) => {
    const reports = listen('corrupt-field');
    const { backend, browser, stored } = await startSite({ secrets: [secret] });
    const target = encrypted(secret, await recordKey(browser.id)).name('user');
    await backend.poke(browser.id, { [target]: tamper((await stored()).get(target)!) });
    expect(await all(browser)).toEqual({ cart: data.cart, flash: data.flash });
    expect(reports).toEqual([{ driver: expect.stringMatching(/^session-test-/) }]);
    // Later writes of other keys leave it as it is. Setting the key replaces it.
    await browser.visit((session) => session.set('flash', 'again'));
    expect([...(await stored()).keys()]).toContain(target);
    await browser.visit((session) => session.set('user', 'grace'));
    expect(await all(browser)).toEqual({ user: 'grace', cart: data.cart, flash: 'again' });
  });

  it('a plaintext field that someone added is ignored', async () => {
    const { backend, browser } = await startSite({ secrets: [secret] });
    await backend.poke(browser.id, { admin: ':[true]' });
    expect(await all(browser)).toEqual(data);
  });
});

describe('a field is decrypted only when it is read', () => {
  it('and no other field is', async () => {
    const codecs = [encrypted(secret, 'record')] as const;
    let decrypted = 0;
    const counting: FieldCodecs = [{ ...codecs[0], read: (...field) => (decrypted++, codecs[0].read(...field)) }];
    const fields = new Map<string, string>();
    for (let index = 0; index < 1000; index++) {
      fields.set(codecs[0].name(`key${index}`), codecs[0].value(`key${index}`, `:${index}`));
    }
    const session = toSession(fields, counting, () => undefined);
    expect(decrypted).toBe(0);
    for (let again = 0; again < 3; again++) expect(session.get('key7')).toBe(':7');
    expect(session.get('unknown')).toBeUndefined();
    expect(decrypted).toBe(1);
    expect(session.expiries!(new Set(['key7', 'unknown']))).toHaveLength(999);
    expect(decrypted).toBe(1);
    expect(new Map(session).size).toBe(1000);
    expect(session.get('key8')).toBe(':8');
    expect(decrypted).toBe(1001);
  });

  it('and a corrupt one is reported then, once for each read of the session', async () => {
    const reports = listen('corrupt-field');
    const { backend, browser, stored } = await startSite({ secrets: [secret] });
    const target = encrypted(secret, await recordKey(browser.id)).name('user');
    await backend.poke(browser.id, { [target]: (await stored()).get(target)!.replace(/.{4}$/, 'AAAA') });
    await browser.visit(async (session) => {
      expect(await session.get('cart')).toEqual(data.cart);
      expect(await session.has('flash')).toBe(true);
      session.set('cart', ['scarf']);
    });
    expect(reports).toEqual([]);
    await browser.visit(async (session) => {
      expect(await session.get('user')).toBeUndefined();
      expect(await session.has('user')).toBe(false);
      expect(await session.keys()).toEqual(['cart', 'flash']);
    });
    expect(reports).toHaveLength(1);
  });

  it('and a corrupt one can be updated and deleted, each with one write', async () => {
    const { backend, browser, stored } = await startSite({ secrets: [secret] });
    const codec = encrypted(secret, await recordKey(browser.id));
    const damage = async (key: string): Promise<void> => {
      const value = (await stored()).get(codec.name(key))!;
      await backend.poke(browser.id, { [codec.name(key)]: value.replace(/.{4}$/, 'AAAA') });
    };
    await damage('cart');
    await damage('flash');
    backend.calls = [];
    await browser.visit((session) => session.update('cart', (cart) => [cart, 'scarf']));
    await browser.visit(async (session) => {
      await session.get('user');
      session.delete('flash');
    });
    expect(backend.calls).toEqual(['read', 'patch', 'read', 'patch']);
    expect(await all(browser)).toEqual({ user: data.user, cart: [undefined, 'scarf'] });
    expect((await stored()).size).toBe(2);
  });

  it('and several updates in one request see each other', async () => {
    const { browser } = await startSite({ secrets: [secret] });
    await browser.visit(async (session) => {
      expect(await session.update('visits', () => 1)).toBe(1);
      expect(await session.update('visits', (count) => (count as number) + 1)).toBe(2);
      expect(await session.update('flash', () => undefined)).toBeUndefined();
      expect(Object.fromEntries(await session.entries())).toEqual({ user: data.user, cart: data.cart, visits: 2 });
      await session.regenerate();
    });
    expect(await all(browser)).toEqual({ user: data.user, cart: data.cart, visits: 2 });
  });
});

describe('when secrets are rotated', () => {
  it('users stay signed in, and no field of the old secret is left after a write', async () => {
    const { browser, deploy, stored } = await startSite({ secrets: [secret] });
    expect(await all(deploy({ secrets: [secret, next] }))).toEqual(data);
    const between = deploy({ secrets: [next, secret] });
    expect(await all(between)).toEqual(data);
    await between.visit((session) => {
      session.set('user', 'grace');
      session.set('cart', []);
      session.delete('flash');
    });
    expect((await stored()).size).toBe(2);
    expect(await all(deploy({ secrets: [next] }))).toEqual({ user: 'grace', cart: [] });
    expect(await all(deploy({ secrets: [secret] }))).toEqual({});
    expect(browser.id).toBe(between.id);
  });

  it('one read is enough to keep unchanged values after the old secret is removed', async () => {
    const { deploy, stored } = await startSite({ secrets: [secret] });
    const before = [...(await stored()).keys()];
    expect(await deploy({ secrets: [next, secret] }).visit((session) => session.get('user'))).toEqual(data.user);
    const after = [...(await stored()).keys()];
    expect(after).toHaveLength(before.length);
    expect(after.filter((name) => before.includes(name))).toEqual([]);
    expect(await all(deploy({ secrets: [next] }))).toEqual(data);
  });

  it('`update` changes a value that the old secret encrypted, and loses nothing', async () => {
    const { deploy, stored } = await startSite({ secrets: [secret] });
    const before = (await stored()).size;
    const between = () => deploy({ secrets: [next, secret] });
    const add = (item: string) =>
      between().visit((session) => session.update('cart', (cart = []) => [...(cart as string[]), item]));
    await Promise.all(['scarf', 'gloves', 'shoes'].map(add));
    expect(await all(between())).toMatchObject({
      cart: expect.arrayContaining(['hat', 'coat', 'scarf', 'gloves', 'shoes']),
    });
    expect((await stored()).size).toBe(before);
    expect(await between().visit((session) => session.update('fresh', (value) => value ?? 'new'))).toBe('new');
  });

  it('enabling encryption with `migrateFrom` encrypts plaintext as soon as it is read', async () => {
    const reports = listen('corrupt-field');
    const { deploy, stored } = await startSite({});
    const migrating = deploy({ secrets: [secret], migrateFrom: { until: '2100-01-01' } });
    expect(await all(migrating)).toEqual(data);
    expect([...(await stored()).keys()].every((name) => name.startsWith('~'))).toBe(true);
    expect(await all(deploy({ secrets: [secret] }))).toEqual(data);
    expect(reports).toEqual([]);
  });

  it('enabling encryption without `migrateFrom` ignores plaintext', async () => {
    const { deploy } = await startSite({});
    expect(await all(deploy({ secrets: [secret] }))).toEqual({});
  });

  it('if several codecs have written a field, the first codec wins', () => {
    const codecs: FieldCodecs = [encrypted(next, 'record'), encrypted(secret, 'record'), plaintext];
    const fields = new Map(codecs.map((codec, index) => [codec.name('user'), codec.value('user', `:${index}`)]));
    expect(fields.size).toBe(3);
    expect([...toSession(fields, codecs, () => undefined)]).toEqual([['user', ':0']]);
    expect(toSession(fields, codecs, () => undefined).get('user')).toBe(':0');
  });
});

describe('the option `secrets`', () => {
  const first = (backend: Backend) => backend.driver.getItem('abcdefghijklmnop');

  it.each([
    ['short', ['tooshort']],
    ['repetitive', ['abababababababababababababababababab']],
    ['not a string', [42]],
    ['missing', []],
  ])('rejects one that is %s, says how to create one, and does not quote it', async (_what, secrets) => {
    const error = await first(createBackend({ secrets: secrets as string[] })).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'configuration', message: expect.stringMatching(/`secrets`: expected/) });
    expect(String(error)).not.toMatch(/tooshort|abab|42/);
    if (secrets.length > 0) expect(String(error)).toContain('openssl rand -base64 32');
  });

  it('accepts an environment variable with several secrets, separated by commas', async () => {
    vi.stubEnv('SESSION_SECRETS', `${next}, ${secret}`);
    onTestFinished(() => void vi.unstubAllEnvs());
    const { browser, deploy } = await startSite({ secrets: { fromEnv: 'SESSION_SECRETS' } });
    expect(await all(browser)).toEqual(data);
    expect(await all(deploy({ secrets: [next] }))).toEqual(data);
  });
});
