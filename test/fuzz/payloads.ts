import { createSessions } from '@coatcheck/session-core';
import memory from '@coatcheck/session-memory/runtime';
import fc from 'fast-check';
import { cut, damage, corrupt, flatten, hydrate, rarely, session, type Entry } from './damage.ts';
import { assert, attempt, property, SECRET, type Target } from './target.ts';

const ID = `11111111-1111-4111-8111-${SECRET}`;
const OTHER = `22222222-2222-4222-8222-${SECRET}`;

/** What no payload is. */
const nothing = fc.constantFrom<unknown>(
  undefined,
  null,
  0,
  1n,
  SECRET,
  '',
  '[]',
  '-1',
  '{}',
  '[[]]',
  '[["Map",0,0]]',
  `[["Map"${',1,2'.repeat(1e4)}],"${SECRET}",{"data":0}]`,
  `[${Array.from({ length: 2e4 }, (_, level) => `[${level + 1}]`).join()},0]`,
  `[["Map",1,2],"deep",{"data":3},${Array.from({ length: 2e4 }, (_, level) => `[${level + 4}]`).join()},0]`,
  Symbol(SECRET),
  new Map([[SECRET, 1]]),
  new TextEncoder().encode('[["Map"]]'),
  [['Map', 1, 2], SECRET, { data: 3n }],
  [['Map', 1, 2], SECRET, { data: 3, expires: () => 1 }, SECRET],
  [['Map', 1, 2], SECRET, { data: 3, '~': 3 }, Symbol(SECRET)],
);

/** What Astro hands over to be stored, and what might come in its place. */
export const payloads: Target = {
  name: 'payloads',
  cases: 150_000,
  casesInTests: 400,
  open() {
    let cases = 0;
    // The time of a read, which the marks hold, may become an expiry.
    const { now: clock } = Date;
    const openedAt = clock();
    Date.now = () => openedAt;
    return {
      close: () => void (Date.now = clock),
      property: property(
        fc.record({
          before: session,
          /** Whether the session was read before, so that its entries are marked. */
          isMarked: fc.boolean(),
          isChanged: fc.boolean(),
          damages: fc.array(damage, { maxLength: 3 }),
          cut: rarely(cut),
          asText: fc.boolean(),
          instead: rarely(fc.tuple(nothing), 100),
        }),
        async (given) => {
          const driver = memory({ prefix: `payloads ${++cases}:` });
          const sessions = createSessions({ driver });
          const entriesOf = (id: string) => sessions.open(`astro-session=${id}`).entries();

          await driver.setItem(OTHER, flatten(new Map([['who', { data: OTHER, expires: undefined }]])));
          const valid = flatten(given.before());
          await driver.setItem(ID, valid);
          const before = valuesOf(hydrate(await driver.getItem(ID)));
          assert(sameValues(before, valuesOf(hydrate(JSON.parse(valid)))), 'A valid session reads differently.');

          const held = given.isMarked ? hydrate(await driver.getItem(ID)) : given.before();
          if (given.isChanged) held.set('new', { data: [SECRET], expires: undefined });
          let payload: unknown = corrupt(flatten(held), given.damages);
          if (given.cut) payload = given.cut(payload as string);
          else if (!given.asText) payload = JSON.parse(payload as string);
          if (given.instead) [payload] = given.instead;
          const meant = given.isMarked ? undefined : meaningOf(payload);

          const result = await attempt(() => driver.setItem(ID, payload));
          // Null where all that was stored has expired.
          const read = async () => hydrate((await driver.getItem(ID)) ?? [['Map']]);
          const now = valuesOf(await read());
          if (result instanceof Error)
            assert(sameValues(now, before), 'A write that failed changed the session.', payload);
          else if (meant) assert(sameValues(now, meant), 'What was stored is not what was meant.', [payload, now]);
          const seen = new Map(flattenAll(await entriesOf(ID)));
          // `Session` still reads some corrupt values that Astro would choke on.
          const unlike = [...now].find(([key, value]) => seen.get(key) !== value);
          assert(unlike === undefined, 'Another reader sees another session.', [payload, unlike]);

          const next = (await read()).set('next', { data: 'next', expires: undefined });
          const written = await attempt(() => driver.setItem(ID, flatten(next)));
          const last = valuesOf(await read());
          assert(last.get('next') === '["next"]', 'The session cannot be written any more.', [payload, written]);
          for (const [key, value] of now)
            if (key !== 'next') assert(last.get(key) === value, 'A value was lost.', [payload, key]);

          const [[key, other] = [], ...rest] = await entriesOf(OTHER);
          assert(key === 'who' && other === OTHER && rest.length === 0, "Another visitor's session was changed.");
        },
      ),
    };
  },
};

/** What a payload says, if Astro itself could have written it. */
function meaningOf(payload: unknown): Map<string, string> | undefined {
  try {
    const text = typeof payload === 'string' ? payload : JSON.stringify(payload);
    const entries = hydrate(JSON.parse(text));
    return flatten(entries) === text ? valuesOf(entries) : undefined;
  } catch {
    return undefined;
  }
}

function valuesOf(entries: Map<string, Entry>): Map<string, string> {
  const living = [...entries].filter(([, { expires }]) => !(typeof expires === 'number' && expires < Date.now()));
  return new Map(flattenAll(living.map(([key, { data }]) => [key, data])));
}

function flattenAll(entries: [string, unknown][]): [string, string][] {
  return entries.map(([key, value]) => [key, flatten(value)]);
}

function sameValues(one: Map<string, string>, other: Map<string, string>): boolean {
  return one.size === other.size && [...one].every(([key, value]) => other.get(key) === value);
}
