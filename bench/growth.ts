import memory from '@coatcheck/session-memory/runtime';
import unstorageMemory from 'unstorage/drivers/memory';
import { cpuOf, median, repeat, takeTurns, type Sample } from './measure.ts';
import type { Page } from './pages.ts';
import { spread, times, type Group, type Row } from './report.ts';
import { astro, astroWithOurs, session, visitorOf, type Visit } from './subjects.ts';

const read: Page = async (opened) => opened.get('key 7');
let count = 0;
const write: Page = (opened) => opened.set('key 7', `value ${++count}`);

/** One request with a session of so many keys, and how much longer it takes than with a tenth of them. */
function row(keys: number, what: string, page: Page, name: string): Row {
  return {
    name: `growth-${name}-${keys}`,
    what: `${what}, ${keys.toLocaleString('en')} keys`,
    reach: keys > 10 ? 'at most 10 times' : '',
    async run(quick) {
      const turnsWith = async (size: number, label: string) => {
        const fill: Page = async (opened) => {
          for (let index = 0; index < size; index++) await opened.set(`key ${index}`, `value ${index}`);
        };
        const turn = async (visit: Visit): Promise<() => Promise<Sample>> => {
          const request = await visitorOf(visit, fill);
          return () => repeat(() => visit(request, page), 20);
        };
        return {
          [`astro${label}`]: await turn(astro(unstorageMemory())),
          [`session${label}`]: await turn(session(memory())),
          [`face${label}`]: await turn(astroWithOurs(memory())),
        };
      };
      const turns = { ...(await turnsWith(keys, '')), ...(keys > 10 ? await turnsWith(keys / 10, 'Before') : {}) };
      const took = await takeTurns(turns, quick ? 10 : 40);
      const growth = keys > 10 ? median(cpuOf(took['session']!)) / median(cpuOf(took['sessionBefore']!)) : undefined;
      return {
        cells: ['astro', 'session', 'face'].map((library) => spread(cpuOf(took[library]!), 'µs')),
        ...(growth !== undefined && { ours: times(growth), reached: growth <= 10 }),
      };
    },
  };
}

const sizes = [10, 100, 1000, 10_000];

export const growth: Group = {
  title: 'How the cost of a request grows with the number of keys',
  about:
    'CPU time of one request that reads or sets one key, in memory. `ours` is how much longer `Session` takes than with a tenth of the keys: at most 10 ' +
    'times is linear growth or better.',
  columns: ['Astro, unstorage', '`Session`', 'Astro, Coatcheck'],
  rows: [
    ...sizes.map((keys) => row(keys, 'read one key', read, 'read')),
    ...sizes.map((keys) => row(keys, 'set one key', write, 'set')),
  ],
};
