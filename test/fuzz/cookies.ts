import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { createSessions } from '@coatcheck/session-core';
import memory from '@coatcheck/session-memory/runtime';
import fc from 'fast-check';
import { codePoint } from '../../packages/session-core/test/support/values.ts';
import { assert, attempt, property, SECRET, type Target } from './target.ts';

const NAME = 'astro-session';
const ANNA = `aaaaaaaa-aaaa-4aaa-8aaa-${SECRET}`;
const BERT = `bbbbbbbb-bbbb-4bbb-bbbb-${SECRET}`;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/i;
const OURS = /^[\w-]{16,128}$/;

const byte = fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code));
const bytes = fc.string({ unit: byte, maxLength: 40 });
const anyText = fc.oneof(bytes, fc.string({ unit: codePoint, maxLength: 20 }));

const id = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(ANNA, BERT) },
  fc.uuid({ version: 4 }).map((uuid) => uuid.slice(0, -SECRET.length) + SECRET),
  fc.string({ unit: fc.constantFrom('a', 'Z', '0', '9', '_', '-'), maxLength: 140 }).map((text) => SECRET + text),
);
/** An id, and what may have become of it. */
const value = fc.oneof(
  { weight: 4, arbitrary: id },
  id.map((it) => `"${it}"`),
  id.map((it) => it.replaceAll('-', '%2D')),
  id.map((it) => it.toUpperCase()),
  id.map((it) => encodeURIComponent(`${it}\0`)),
  id.map((it) => `s:${it}.signature`),
  fc
    .tuple(id, id, fc.constantFrom(',', ' ', '=', '\0', '\r\n', ''))
    .map(([one, other, between]) => one + between + other),
  fc.tuple(id, anyText).map(([it, text]) => it + text),
  anyText,
);
const name = fc.oneof(
  { weight: 6, arbitrary: fc.constant(NAME) },
  fc.tuple(anyText, fc.boolean()).map(([text, before]) => (before ? text + NAME : NAME + text)),
  fc.constantFrom('ASTRO-SESSION', `"${NAME}"`, 'astro%2Dsession', '', '__proto__', 'constructor', '$Version'),
  // What JavaScript, other than a browser, takes for a space.
  fc.constantFrom('\u00A0', '\uFEFF', '\u3000', '\u0085', '\v', '\f', '\t', '\n').map((space) => space + NAME),
);
const pair = fc.oneof(
  { weight: 5, arbitrary: fc.tuple(name, fc.constantFrom('=', '=', ' = ', '==', ''), value).map((it) => it.join('')) },
  anyText,
);
const header = fc
  .tuple(
    fc.array(fc.tuple(pair, fc.constantFrom('; ', '; ', ';', ';;', ' ;\t', ',', '\n')), { maxLength: 6 }),
    fc.oneof({ weight: 200, arbitrary: fc.constant(0) }, fc.nat(100_000)),
    fc.constantFrom(';', ' ', 'a=b; ', `${NAME}; `, '=', '"', 'x', '\u00FF'),
    fc.boolean(),
  )
  .map(([pairs, length, filler, first]) => {
    const text = pairs.flat().join('');
    const long = filler.repeat(length / filler.length);
    return first ? long + text : text + long;
  });

const strangeId = fc.oneof(
  value,
  fc.constantFrom<unknown>(undefined, null, 0, 1n, true, {}, [], [ANNA], new String(ANNA), new Date(0)),
);

/** What a browser sends, and what a caller takes for an id. */
export const cookies: Target = {
  name: 'cookies',
  cases: 350_000,
  casesInTests: 500,
  async open() {
    const astros = await Promise.all(['astro-6', 'astro-7'].map(cookieReaderOf));
    let cases = 0;
    const ownerOf = (it: unknown): unknown => (it === ANNA || it === BERT ? it : undefined);

    return {
      property: property(fc.tuple(header, strangeId), async ([text, strange]) => {
        const driver = memory({ prefix: `cookies ${++cases}:` });
        for (const whose of [ANNA, BERT]) {
          await driver.setItem(whose, [['Map', 1, 2], 'who', { data: 3, expires: -1 }, whose]);
        }
        const sessions = createSessions({ driver });
        const session = sessions.open(text);
        const found = session.sessionID;
        assert(found === undefined || OURS.test(found), 'An id was taken that is none.');
        for (const { raw, decoded } of astros.map((read) => read(text))) {
          // Astro also takes an id that is percent-encoded, which nobody sends.
          if (raw !== undefined && UUID.test(raw)) assert(found === raw, 'Astro takes this id from the cookie.', found);
          if (found !== undefined && UUID.test(found)) assert(found === decoded, 'Astro takes another id.', decoded);
        }
        assert((await session.get('who')) === ownerOf(found), "Not the visitor's own session.");

        const visit = sessions.open(text);
        visit.set('note', 1);
        const setCookie = await visit.commit();
        if (ownerOf(found)) {
          assert(setCookie === undefined, 'A known session got another cookie.', setCookie);
        } else {
          const [, sent] =
            /^astro-session=([\w-]{36}); Path=\/; HttpOnly; Secure; SameSite=Lax$/.exec(setCookie!) ?? [];
          assert(sent !== undefined && sent !== found, 'An id that nobody knows was adopted.', setCookie);
          assert((await sessions.open(`${NAME}=${sent}`).get('note')) === 1, 'The cookie that was sent finds nothing.');
        }

        const isId = typeof strange === 'string' && OURS.test(strange);
        const strangeKey = strange as string;
        const read = await attempt(() => driver.getItem(strangeKey));
        assert(Array.isArray(read) === (ownerOf(strange) !== undefined), 'A wrong session was read.');
        if (ownerOf(strange)) return;
        const written = await attempt(() => driver.setItem(strangeKey, '[["Map"]]'));
        assert(isId ? written === undefined : written instanceof Error, 'Whether a session was stored.', written);
        if (written instanceof Error) assert((written as { code?: string }).code === 'invalid-id', 'The code.');
        assert((await attempt(() => driver.removeItem(strangeKey))) === undefined, 'Removing failed.');
        assert((await attempt(() => sessions.open(undefined).load(strangeKey))) === undefined, 'Loading failed.');
        await attemptOpen(() => sessions.open(strangeKey));
      }),
    };
  },
};

function attemptOpen(open: () => { get(key: string): Promise<unknown> }): Promise<unknown> {
  return attempt(() => open().get('who'));
}

/** What Astro itself makes of a header. */
async function cookieReaderOf(astro: string): Promise<(header: string) => { raw?: string; decoded?: string }> {
  const manifest = createRequire(import.meta.url).resolve(`${astro}/package.json`);
  const { AstroCookies } = (await import(new URL('dist/core/cookies/cookies.js', pathToFileURL(manifest)).href)) as {
    AstroCookies: new (request: unknown) => {
      get(name: string, options?: { decode(text: string): string }): { value: string } | undefined;
    };
  };
  return (text) => {
    const own = new AstroCookies({ headers: { get: () => text } });
    const raw = own.get(NAME, { decode: (encoded) => encoded })?.value;
    const decoded = own.get(NAME)?.value;
    return { ...(raw !== undefined && { raw }), ...(decoded !== undefined && { decoded }) };
  };
}
