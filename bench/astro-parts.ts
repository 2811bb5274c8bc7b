import memory from '@coatcheck/session-memory/runtime';
import { stringify, unflatten } from 'devalue';
import { cpuOf, ratio, repeat, takeTurns } from './measure.ts';
import { pages, type PageName } from './pages.ts';
import { percent, spread, type Group, type Row } from './report.ts';
import { astroWithOurs, visitorOf } from './subjects.ts';

const reducers = { URL: (value: unknown) => value instanceof URL && value.href };
const revivers = { URL: (href: string) => new URL(href) };

/** One request that sets a key, and the parts of it that a driver cannot change. */
function row(name: string, what: string, fill: PageName): Row {
  return {
    name,
    what,
    reach: '',
    async run(quick) {
      const driver = memory();
      const visit = astroWithOurs(driver);
      const request = await visitorOf(visit, pages[fill]);
      const id = request.headers.get('cookie')!.split('=')[1]!;
      const read = async () => unflatten((await driver.getItem(id)) as unknown[] as number[], revivers) as unknown;
      const session = await read();
      const payload = stringify(session, reducers);
      const layout = JSON.stringify(await driver.getItem(id));
      const took = await takeTurns(
        {
          request: () => repeat(() => visit(request, pages.write), 20),
          stringify: () => repeat(() => stringify(session, reducers), 20),
          parse: () => repeat(() => JSON.parse(payload) as unknown, 20),
          unflatten: () => repeat(() => unflatten(JSON.parse(layout) as number[], revivers) as unknown, 20),
        },
        quick ? 20 : 120,
      );
      const part = (which: 'stringify' | 'parse' | 'unflatten'): string =>
        `${spread(cpuOf(took[which]), 'µs')}: **${percent(ratio(took[which], took.request, 'cpuUs'))}**`;
      return { cells: [spread(cpuOf(took.request), 'µs'), part('stringify'), part('parse'), part('unflatten')] };
    },
  };
}

export const astroParts: Group = {
  title: 'Where the time of a write in Astro goes',
  about:
    'CPU time of a request that sets one key, with `session-memory`, and of its parts: devalue writes the session, the driver parses what devalue ' +
    'wrote, and devalue decodes what the driver returned (here with parsing it). In bold: the share of the request.',
  columns: ['request', 'devalue `stringify`', '`JSON.parse`', 'devalue `unflatten`'],
  rows: [row('parts', '1.4 kB', 'login'), row('parts-large', '50 kB', 'loginLarge')],
};
