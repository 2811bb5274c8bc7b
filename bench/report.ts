import { median, quantile } from './measure.ts';

/** Rows that are measured on the same things. */
export interface Group {
  title: string;
  /** What the rows mean. */
  about: string;
  /** The heads of the columns. */
  columns: string[];
  rows: Row[];
}

export interface Row {
  /** What `--row` calls it. */
  name: string;
  what: string;
  /** What the design wants. */
  reach: string;
  run(quick: boolean): Promise<Result>;
}

export interface Result {
  /** One for each of the group's columns. */
  cells: string[];
  /** How we stand to the others, in the words of `reach`. */
  ours?: string;
  /** Whether what is to be reached was. */
  reached?: boolean;
  /** Whether `bench` fails when it was not. */
  binds?: boolean;
}

export const digits = (value: number): string =>
  value.toLocaleString('en', value < 100 ? { maximumSignificantDigits: 2 } : { maximumFractionDigits: 0 });

/** The median, and between brackets the quartiles. */
export function spread(values: number[], unit: string): string {
  return `${digits(median(values))} ${unit} (${digits(quantile(values, 0.25))}–${digits(quantile(values, 0.75))})`;
}

export const times = (factor: number): string => `${digits(factor)} times`;
export const percent = (part: number): string => `${Math.round(part * 100)} %`;

/** Prints a table as its rows come in; resolves to the names of the rows that fell short, and of those among them that bind. */
export async function printGroup({ title, about, columns, rows }: Group, quick: boolean) {
  const behind: string[] = [];
  const broken: string[] = [];
  console.log(`\n## ${title}\n\n${about}\n`);
  console.log(line(['', 'row', ...columns, 'ours', 'to reach', '']));
  console.log(line(Array.from({ length: columns.length + 5 }, () => '---')));
  for (const { name, what, reach, run } of rows) {
    const { cells, ours = '', reached, binds = false } = await run(quick);
    if (reached === false) (binds ? broken : behind).push(name);
    const verdict = reached === undefined ? '' : reached ? 'yes' : '**behind**';
    console.log(line([what, `\`${name}\``, ...cells, ours, reach, verdict]));
  }
  return { behind, broken };
}

function line(cells: string[]): string {
  return `| ${cells.join(' | ')} |`;
}
