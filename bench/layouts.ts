import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { createLayoutCache } from '../packages/session-core/src/astro/layout.ts';
import { loadDevalue } from '../packages/session-core/src/codec/flat.ts';
import { digits, type Group, type Row } from './report.ts';

const run = promisify(execFile);

/** A value as a backend returns it: a new string each time, in devalue's format. */
const text = (value: unknown): string => Buffer.from(`:${JSON.stringify([value])}`).toString();

/** The fields of a session, about 1.4 kB with 10 lines and 50 kB with 390. */
function fieldsOf(index: number, lines: number): Map<string, string> {
  const fields = new Map([['user', text(`Ada Lovelace, visitor ${index}`)]]);
  for (let line = 0; line < lines; line++)
    fields.set(
      `line ${line}`,
      text(`${index}: a warm woollen coat in the colour number ${line}, with buttons made of horn, and a hood`),
    );
  return fields;
}

/** The heap in MB that the cache takes after it has seen so many different sessions. */
function measure(count: number, lines: number): number {
  global.gc!();
  const before = process.memoryUsage().heapUsed;
  const cache = createLayoutCache();
  for (let index = 0; index < count; index++)
    cache.layoutOf(`session ${index}`, fieldsOf(index, lines), Date.now(), () => undefined);
  global.gc!();
  const after = process.memoryUsage().heapUsed;
  cache.forget('');
  return (after - before) / 1e6;
}

function row(name: string, what: string, count: number, lines: number): Row {
  return {
    name,
    what,
    reach: '24 MB',
    async run(quick) {
      const args = ['--expose-gc', import.meta.filename, String(quick ? count / 10 : count), String(lines)];
      const size = Number((await run(process.execPath, args)).stdout);
      return { cells: [`${digits(size)} MB`], reached: size <= 24 };
    },
  };
}

export const layouts: Group = {
  title: 'Memory of the parsed sessions that a driver keeps',
  about:
    'The heap that the cache of one driver takes after it has seen a million different sessions. Its limit is an estimate of 16 MB.',
  columns: ['heap'],
  rows: [
    row('kept', '1,000,000 sessions of 1.4 kB', 1_000_000, 10),
    row('kept-large', '20,000 sessions of 50 kB', 20_000, 390),
  ],
};

if (import.meta.main) {
  await loadDevalue();
  const [count, lines] = process.argv.slice(2).map(Number) as [number, number];
  process.stdout.write(String(measure(count, lines)));
}
