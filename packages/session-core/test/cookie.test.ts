import { afterEach, describe, expect, it, vi } from 'vitest';
import { createSessions, type SessionCookie } from '@coatcheck/session-core';
import memory from '@coatcheck/session-memory/runtime';
import { createBrowser } from './support/backend.ts';
import { isLocalDevelopment, readCookie } from '../src/session/cookie.ts';

const ID = '01234567-89ab-4cde-8f01-23456789abcd';
const SHOP = 'https://shop.example/cart';

afterEach(() => void vi.unstubAllEnvs());

/** The Set-Cookie of a new session, with the id replaced. */
async function setCookie(cookie: SessionCookie | undefined, request: Request | string = new Request(SHOP)) {
  const session = createSessions({ driver: memory(), ...(cookie && { cookie }) }).open(request);
  session.set('a', 1);
  return (await session.commit())?.replace(session.sessionID!, 'ID');
}

/** The Set-Cookie of a session that is destroyed. */
async function clearing(cookie: SessionCookie): Promise<string | undefined> {
  const sessions = createSessions({ driver: memory(), cookie });
  const browser = createBrowser(sessions);
  await browser.visit((session) => session.set('a', 1));
  const session = browser.open();
  session.destroy();
  return session.commit();
}

describe('reading the cookie of a request', () => {
  const readings: [header: string, value: string | undefined][] = [
    ['sid=value', 'value'],
    ['a=b; sid=value; c=d', 'value'],
    ['a=b;sid=value;c=d', 'value'],
    ['  sid =  value  ; a=b', 'value'],
    ['\tsid=value\t', 'value'],
    // To a browser, these are not spaces but part of another cookie's name. It does not protect such a name, so anyone can set that cookie.
    ['\u00A0sid=other; sid=value', 'value'],
    ['\uFEFFsid=other; sid\u3000=other; sid=value', 'value'],
    ['sid=first; sid=second', 'first'],
    ['sid=', ''],
    ['sid', undefined],
    ['sid; sid=value', 'value'],
    ['sid;=value', undefined],
    ['=sid; sid=value', 'value'],
    ['', undefined],
    [';;; ; ;', undefined],
    ['xsid=1; sidx=2; my-sid=3; sid-2=4; SID=5', undefined],
    ['other=sid=value', undefined],
    ['other="a; sid=value"', 'value"'],
    ['sid="value"', '"value"'],
    ['sid=a=b', 'a=b'],
    ['sid=a%20b', 'a%20b'],
    ['__proto__=x; constructor=y', undefined],
    [`${'a;'.repeat(5000)}sid=value`, 'value'],
  ];

  it.each(readings)('%j', (header, value) => {
    expect(readCookie(header, 'sid')).toBe(value);
  });

  it('accepts a Request, its header, null and undefined', () => {
    const { open } = createSessions({ driver: memory() });
    const cookie = `a=b; astro-session=${ID}`;
    expect(open(new Request(SHOP, { headers: { cookie } })).sessionID).toBe(ID);
    expect(open(new Request(SHOP)).sessionID).toBeUndefined();
    expect(open(cookie).sessionID).toBe(ID);
    expect(open(null).sessionID).toBeUndefined();
    expect(open(undefined).sessionID).toBeUndefined();
  });

  it.each([
    `"${ID}"`,
    `${ID}.signature`,
    `s:${ID}`,
    'short',
    `${ID} `.repeat(2),
    `${ID}%00`,
    'x'.repeat(129),
    `${ID}é`,
  ])('the id %j has a bad shape and is ignored', (id) => {
    expect(createSessions({ driver: memory() }).open(`astro-session=${id}`).sessionID).toBeUndefined();
  });

  it.each([ID, 'x'.repeat(16), 'x'.repeat(128), 'A-z_0123456789-_'])('the id %j is valid', (id) => {
    expect(createSessions({ driver: memory() }).open(`astro-session=${id}`).sessionID).toBe(id);
  });
});

describe('the cookie of a response', () => {
  const attributes: [cookie: SessionCookie | undefined, text: string][] = [
    [undefined, 'astro-session=ID; Path=/; HttpOnly; Secure; SameSite=Lax'],
    [{}, 'astro-session=ID; Path=/; HttpOnly; Secure; SameSite=Lax'],
    [{ name: 'sid' }, 'sid=ID; Path=/; HttpOnly; Secure; SameSite=Lax'],
    [
      { domain: 'shop.example', path: '/shop' },
      'astro-session=ID; Domain=shop.example; Path=/shop; HttpOnly; Secure; SameSite=Lax',
    ],
    [{ maxAge: 3600.5 }, 'astro-session=ID; Max-Age=3600; Path=/; HttpOnly; Secure; SameSite=Lax'],
    [{ sameSite: 'strict' }, 'astro-session=ID; Path=/; HttpOnly; Secure; SameSite=Strict'],
    [{ sameSite: true }, 'astro-session=ID; Path=/; HttpOnly; Secure; SameSite=Strict'],
    [{ sameSite: 'none' }, 'astro-session=ID; Path=/; HttpOnly; Secure; SameSite=None'],
    [{ sameSite: false }, 'astro-session=ID; Path=/; HttpOnly; Secure'],
    [{ secure: false }, 'astro-session=ID; Path=/; HttpOnly; SameSite=Lax'],
    [{ domain: '.shop.example' }, 'astro-session=ID; Domain=.shop.example; Path=/; HttpOnly; Secure; SameSite=Lax'],
    [{ name: '__Host-sid', path: '/' }, '__Host-sid=ID; Path=/; HttpOnly; Secure; SameSite=Lax'],
    [
      { name: '__Secure-sid', domain: 'shop.example', path: '/shop' },
      '__Secure-sid=ID; Domain=shop.example; Path=/shop; HttpOnly; Secure; SameSite=Lax',
    ],
    [{ sameSite: 'none', partitioned: true }, 'astro-session=ID; Path=/; HttpOnly; Secure; SameSite=None; Partitioned'],
    [
      {
        name: undefined,
        domain: undefined,
        path: undefined,
        maxAge: undefined,
        sameSite: undefined,
        secure: undefined,
      },
      'astro-session=ID; Path=/; HttpOnly; Secure; SameSite=Lax',
    ],
  ];

  it.each(attributes)('%j', async (cookie, text) => {
    expect(await setCookie(cookie)).toBe(text);
  });

  it('is always HttpOnly', async () => {
    expect(await setCookie({})).toContain('; HttpOnly');
    await expect(setCookie({ httpOnly: false } as SessionCookie)).rejects.toThrow('`cookie.httpOnly` is not an option');
  });

  it('rejects a misspelled attribute', async () => {
    await expect(setCookie({ maxage: 3600 } as SessionCookie)).rejects.toThrow(
      '`cookie.maxage` is not an option. Options: name, domain,',
    );
  });

  it.each(['development', 'test'])('is Secure, except on http://localhost while NODE_ENV is %s', async (mode) => {
    vi.stubEnv('NODE_ENV', mode);
    const local = new Request('http://localhost:4321/');
    expect(await setCookie({}, local)).not.toContain('Secure');
    expect(await setCookie({ secure: undefined }, local)).not.toContain('Secure');
    expect(await setCookie({ secure: true }, local)).toContain('; Secure');
    expect(await setCookie({}, new Request('https://localhost:4321/'))).toContain('; Secure');
    expect(await setCookie({}, new Request('http://shop.example/'))).toContain('; Secure');
    // A header does not show the URL of its request.
    expect(await setCookie({}, 'a=b')).toContain('; Secure');
  });

  it.each(['production', 'staging', '', undefined])(
    'is Secure behind a proxy that sends Host: localhost, with NODE_ENV %s',
    async (mode) => {
      vi.stubEnv('NODE_ENV', mode);
      for (const url of ['http://localhost:3000/', 'http://127.0.0.1:3000/', 'https://localhost/']) {
        expect(await setCookie({}, new Request(url))).toContain('; Secure');
      }
      expect(await setCookie({ secure: false }, new Request('http://localhost/'))).not.toContain('Secure');
    },
  );

  it('is Secure on localhost, too, if browsers would otherwise reject it', async () => {
    const local = new Request('http://localhost:4321/');
    expect(await setCookie({ sameSite: 'none' }, local)).toContain('; Secure');
    expect(await setCookie({ name: '__Host-sid' }, local)).toContain('; Secure');
    expect(await setCookie({ name: '__Secure-sid' }, local)).toContain('; Secure');
    expect(await setCookie({ partitioned: true }, local)).toContain('; Secure');
    expect(await setCookie({ name: '__sid' }, local)).not.toContain('Secure');
  });

  it('is cleared with the same name, domain and path', async () => {
    const cookie: SessionCookie = { name: 'sid', domain: 'shop.example', path: '/shop', maxAge: 600, sameSite: 'none' };
    expect(await clearing(cookie)).toBe(
      'sid=; Max-Age=0; Domain=shop.example; Path=/shop; HttpOnly; Secure; SameSite=None',
    );
    expect(await clearing({ name: '__Host-sid', partitioned: true })).toBe(
      '__Host-sid=; Max-Age=0; Path=/; HttpOnly; Secure; SameSite=Lax; Partitioned',
    );
  });
});

describe('an invalid cookie is rejected', () => {
  const refused: [cookie: unknown, problem: string][] = [
    [{ name: '' }, 'cookie.name'],
    ['', 'cookie.name'],
    ['a b', 'cookie.name'],
    [{ name: 'a=b' }, 'cookie.name'],
    [{ domain: 'a.example; Secure' }, 'cookie.domain'],
    [{ path: '/\r\nSet-Cookie: a=b' }, 'cookie.path'],
    [{ path: '' }, 'cookie.path'],
    [{ maxAge: 0 }, 'cookie.maxAge'],
    [{ maxAge: Number.NaN }, 'cookie.maxAge'],
    [{ maxAge: Number.POSITIVE_INFINITY }, 'cookie.maxAge'],
    [{ sameSite: 'Lax' }, 'cookie.sameSite'],
    [{ sameSite: 'constructor' }, 'cookie.sameSite'],
    [{ sameSite: ['lax'] }, 'cookie.sameSite'],
    [{ name: 5 }, 'cookie.name'],
    [{ name: Symbol('sid') }, 'cookie.name'],
    [{ domain: null }, 'cookie.domain'],
    [{ maxAge: 1e21 }, 'cookie.maxAge'],
    [{ secure: 'no' }, 'cookie.secure'],
    [{ partitioned: 1 }, 'cookie.partitioned'],
    // Browsers ignore these cookies without an error.
    [{ name: '__Host-sid', domain: 'shop.example' }, 'and no `cookie.domain`'],
    [{ name: '__Host-sid', path: '/shop' }, 'the `cookie.path` `/`'],
    [{ name: '__host-sid', path: '/shop' }, 'the `cookie.path` `/`'],
    [{ name: '__Host-sid', secure: false }, '`__Host-` needs `cookie.secure`'],
    [{ name: '__Secure-sid', secure: false }, '`__Secure-` needs `cookie.secure`'],
    [{ sameSite: 'none', secure: false }, "`cookie.sameSite: 'none'` needs `cookie.secure`"],
    [{ name: '__Http-sid', secure: false }, '`__Http-` needs `cookie.secure`'],
    [{ domain: 'https://shop.example' }, 'cookie.domain'],
    [{ domain: 'shop.example:80' }, 'cookie.domain'],
    [{ domain: '*.shop.example' }, 'cookie.domain'],
    [{ domain: 'shop..example' }, 'cookie.domain'],
    [{ path: 'shop' }, 'cookie.path'],
    [{ partitioned: true, secure: false }, '`cookie.partitioned` needs `cookie.secure`'],
  ];

  it.each(refused)('%j', (cookie, problem) => {
    const create = () => createSessions({ driver: memory(), cookie: cookie as SessionCookie });
    expect(create).toThrow(TypeError);
    expect(create).toThrow(problem);
  });
});

describe('the URL of a local development server', () => {
  it.each([
    'http://localhost',
    'http://localhost:4321/path',
    'http://LOCALHOST/',
    'http://shop.localhost/',
    'http://127.0.0.1:80/',
    'http://127.8.9.1/',
    'http://[::1]:3000/',
    'http://user:secret@localhost/',
  ])('is %s', (url) => expect(isLocalDevelopment(url)).toBe(true));

  it.each([
    'https://localhost/',
    'https://shop.example/',
    'http://localhost.evil.example/',
    'http://evil.example/localhost',
    'http://evil.example?localhost',
    'http://evil.example#@localhost',
    'http://localhost@evil.example/',
    'http://localhost:80@evil.example/',
    'http://notlocalhost/',
    'http://127.0.0.1.evil.example/',
    'http://127.0.0.evil/',
    'http://[::2]/',
    '/localhost',
    '',
  ])('is not %s', (url) => expect(isLocalDevelopment(url)).toBe(false));
});
