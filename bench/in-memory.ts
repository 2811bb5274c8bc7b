import { startLibrary, type LibraryName, type Turn } from './library.ts';
import { ratio, takeTurns, cpuOf } from './measure.ts';
import { spread, times, type Group, type Row } from './report.ts';

const names = ['astro', 'remix', 'session', 'face'] as const satisfies LibraryName[];

/** One page, visited again and again by somebody whose session another page has filled. */
function timed(name: string, what: string, reach: number | undefined, page: Turn['page'], fill?: Turn['fill']): Row {
  return {
    name,
    what,
    reach: reach === undefined ? '' : times(reach),
    async run(quick) {
      using stack = new DisposableStack();
      const turn = (library: LibraryName) => {
        const started = stack.use(startLibrary(library));
        return () => started.turn({ page, fill, visitors: 1, ms: 20 });
      };
      const turns = { astro: turn('astro'), remix: turn('remix'), session: turn('session'), face: turn('face') };
      const took = await takeTurns(turns, quick ? 20 : 120);
      const factor = ratio(took.astro, took.session, 'cpuUs');
      return {
        cells: names.map((library) => spread(cpuOf(took[library]), 'µs')),
        ours: times(factor),
        ...(reach !== undefined && { reached: factor >= reach }),
      };
    },
  };
}

export const inMemory: Group = {
  title: 'One request, in memory',
  about:
    'What a session adds to one request: the cookie is read, the page does its part, the session is stored, and the `Set-Cookie` header is ' +
    'there. CPU time: the machine may be busy with other things. Medians, and quartiles between brackets; each library has a process of its own, they take turns, and `ours` is the median of how many ' +
    'times as long as `Session` Astro took in the same round. The typical session has 1.4 kB: a user, a cart of ten, a flash message and a token; ' +
    'the large one has 50 kB in fourteen keys. Remix keeps live objects and hands the same ones to every request, which is what makes it fast; its ' +
    'cookies are not counted.',
  columns: ['Astro, unstorage', 'Remix', '`Session`', 'Astro, Coatcheck'],
  rows: [
    timed('anonymous', 'without a cookie: read one key', undefined, 'read'),
    timed('read', 'typical: read one key', 3, 'read', 'login'),
    timed('set', 'typical: set one key, read none', 8, 'write', 'login'),
    timed('change', 'typical: read the cart, change it, set it', 3, 'change', 'login'),
    timed('large-read', '50 kB: read one key', undefined, 'read', 'loginLarge'),
    timed('large-set', '50 kB: set one key, read none', undefined, 'write', 'loginLarge'),
  ],
};
