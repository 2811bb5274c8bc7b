import { createSessions, fromEnv, sweep, type Session, type SessionsOptions } from '@coatcheck/session-core';
import memory from '@coatcheck/session-memory/runtime';
import { fromUnstorage } from '@coatcheck/session-unstorage';
import fc from 'fast-check';
import { flatten, rarely } from './damage.ts';
import { assert, attempt, property, SECRET, type Target } from './target.ts';
import { anything, attemptWild } from './wild.ts';

const ID = `66666666-6666-4666-8666-${SECRET}`;
const OTHER = `77777777-7777-4777-8777-${SECRET}`;

const option = fc.oneof(
  fc
    .tuple(fc.constantFrom('name', 'domain', 'path', 'maxAge', 'sameSite', 'secure', 'httpOnly'), anything)
    .map(([name, make]) => () => ({ cookie: { [name]: make() } })),
  fc.tuple(fc.constantFrom('cookie', 'ttl', 'driver', 'x'), anything).map(([name, make]) => () => ({ [name]: make() })),
);

/** Errors name session keys: the program chose them. */
function withoutSecret(make: () => unknown): () => unknown {
  return () => {
    const made = make();
    return typeof made === 'string' ? made.replaceAll(SECRET, 'key') : made;
  };
}

const key = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.constantFrom(
      () => 'a',
      () => 'b',
      () => '__proto__',
    ),
  },
  anything.map(withoutSecret),
);
const setOptions = fc.oneof(
  { weight: 3, arbitrary: fc.constant(() => undefined) },
  anything,
  anything.map((make) => () => ({ ttl: make() })),
);

/** One call on a session, with arguments that TypeScript would not let through. */
type Call = (session: Session) => unknown;
const call: fc.Arbitrary<Call> = fc.oneof(
  key.map(
    (name): Call =>
      (session) =>
        session.get(name() as string),
  ),
  key.map(
    (name): Call =>
      (session) =>
        session.has(name() as string),
  ),
  key.map(
    (name): Call =>
      (session) =>
        session.delete(name() as string),
  ),
  {
    weight: 5,
    arbitrary: fc.tuple(key, anything, setOptions).map(
      ([name, value, options]): Call =>
        (session) =>
          session.set(name() as string, value(), options() as never),
    ),
  },
  fc.tuple(key, anything, setOptions).map(
    ([name, value, options]): Call =>
      (session) =>
        session.update(name() as string, value, options() as never),
  ),
  anything.map(
    (id): Call =>
      (session) =>
        session.load(id() as string),
  ),
  fc.constantFrom<Call[]>(
    (session) => session.entries(),
    (session) => session.keys(),
    (session) => session.values(),
    (session) => session.regenerate(),
    (session) => session.destroy(),
    (session) => session.commit(),
  ),
);

/** What a program calls, without types to help. */
export const calls: Target = {
  name: 'calls',
  cases: 150_000,
  casesInTests: 500,
  open() {
    let cases = 0;
    return {
      property: property(
        fc.record({ program: fc.array(call, { maxLength: 6 }), wildOption: rarely(option, 2), other: anything }),
        async ({ program, wildOption, other }) => {
          const driver = memory({ prefix: `calls ${++cases}:` });
          const sessions = createSessions({ driver });
          const open = (id: string) => sessions.open(`astro-session=${id}`);
          await driver.setItem(OTHER, flatten(new Map([['who', { data: OTHER, expires: undefined }]])));
          await driver.setItem(ID, flatten(new Map([['a', { data: [SECRET], expires: undefined }]])));

          const session = open(ID);
          for (const run of program) await attemptWild(() => run(session));
          await attempt(() => session.commit());
          await open(ID).entries();
          const after = open(ID);
          after.set('next', 1);
          await after.commit();
          const [[who, owner] = [], ...rest] = await open(OTHER).entries();
          assert(who === 'who' && owner === OTHER && rest.length === 0, "Another visitor's session was changed.");

          if (wildOption) await tryOptions({ driver, ...(wildOption() as Partial<SessionsOptions>) });
          await attemptWild(() => sessions.open(other() as string).entries());
          await attemptWild(() => fromEnv(other() as string));
          await attemptWild(() => sweep(other() as never));
          await attemptWild(() => fromUnstorage(other() as never, other() as never).getItem(ID));
        },
      ),
    };
  },
};

/** What is accepted makes a cookie that finds the session again. */
async function tryOptions(options: SessionsOptions): Promise<void> {
  const sessions = await attemptWild(() => createSessions(options));
  if (sessions instanceof Error) return;
  const session = sessions.open(undefined);
  const setCookie = await attemptWild(async () => {
    session.set('a', 1, { ttl: 60 });
    return session.commit();
  });
  if (setCookie instanceof Error) return;
  assert(typeof setCookie === 'string' && /^[\x20-\x7E]+$/.test(setCookie), 'The cookie.', setCookie);
  const [pair, ...attributes] = setCookie.split('; ');
  assert(attributes.includes('HttpOnly'), 'The cookie can be read by scripts.', setCookie);
  assert(!/Max-Age=(?!\d+;)/.test(setCookie), 'Browsers do not read this.', setCookie);
  assert((await sessions.open(pair).get('a')) === 1, 'The cookie that was sent finds nothing.', setCookie);
}
