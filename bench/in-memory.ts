import memory from '@coatcheck/session-memory/runtime';
import { createMemorySessionStorage } from '@remix-run/session/memory-storage';
import unstorageMemory from 'unstorage/drivers/memory';
import { ratio, takeTurns } from './measure.ts';
import { change, login, loginLarge, read, write, type Page } from './pages.ts';
import { spread, times, type Group, type Row } from './report.ts';
import { anonymous, astro, astroWithOurs, remix, session, visitorOf } from './subjects.ts';

const visits = {
  astro: astro(unstorageMemory()),
  remix: remix(createMemorySessionStorage()),
  session: session(memory()),
  face: astroWithOurs(memory()),
};

type Name = keyof typeof visits;
const names = Object.keys(visits) as Name[];

/** One page, visited again and again by somebody whose session was filled by another. */
function timed(name: string, what: string, reach: number, page: Page, fill?: Page): Row {
  return {
    name,
    what,
    reach: times(reach),
    async run(quick) {
      const works = {} as Record<Name, () => unknown>;
      for (const subject of names) {
        const visit = visits[subject];
        const request = fill ? await visitorOf(visit, fill) : anonymous;
        works[subject] = () => visit(request, page);
      }
      const took = await takeTurns(works, quick ? { rounds: 5, sliceMs: 40 } : { rounds: 25, sliceMs: 100 });
      const factor = ratio(took.astro.us, took.session.us);
      return {
        cells: names.map((subject) => spread(took[subject].us, 'µs')),
        ours: times(factor),
        reached: factor >= reach,
      };
    },
  };
}

export const inMemory: Group = {
  title: 'One request, in memory',
  about:
    'What a session adds to one request: the cookie is read, the page does its part, the session is stored, and the `Set-Cookie` header is ' +
    'there. Medians, and quartiles between brackets; they took turns, and `ours` is the median of how much longer Astro took than `Session` in ' +
    'the same round. The typical session has 1.4 kB: a user, a cart of ten, a flash message and a token; the large one has 50 kB in fourteen ' +
    'keys. Remix keeps the live objects and hands the same ones to every request, which is what makes it fast; its cookies are not counted.',
  columns: ['Astro, unstorage', 'Remix', '`Session`', 'Astro, Coatcheck'],
  rows: [
    timed('anonymous', 'without a cookie: read one key', 2.5, read),
    timed('read', 'typical: read one key', 7, read, login),
    timed('set', 'typical: set one key, read none', 16, write, login),
    timed('change', 'typical: read the cart, change it, set it', 8, change, login),
    timed('large-read', '50 kB: read one key', 80, read, loginLarge),
    timed('large-set', '50 kB: set one key, read none', 80, write, loginLarge),
  ],
};
