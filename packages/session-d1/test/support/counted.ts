import type { D1Database, D1PreparedStatement, D1Result } from '@cloudflare/workers-types';

/** What D1 has done. */
export interface Usage {
  /** The number of calls that went to D1. */
  calls: number;
  rowsRead: number;
  rowsWritten: number;
}

/** How a database behaves; tests change it. */
export interface Behavior {
  /** The message of the error that each call has from now on. */
  failing?: string | undefined;
  /** Whether D1 has run the statements of a call that fails. */
  afterwards?: boolean;
  /** After how many calls the failing ends. */
  times?: number;
}

export interface Counted {
  client: D1Database;
  behavior: Behavior;
  /** What D1 has done since the last call. */
  usage(): Usage;
}

/** Counts what a database does, and makes it fail. Without the methods that this test does not expect. */
export function counted(database: D1Database): Counted {
  const behavior: Behavior = {};
  let usage: Usage = { calls: 0, rowsRead: 0, rowsWritten: 0 };
  const run = async (work: () => Promise<D1Result[]>): Promise<D1Result[]> => {
    usage.calls += 1;
    const { failing, afterwards, times = Infinity } = behavior;
    const fails = failing !== undefined && times > 0;
    if (fails) behavior.times = times - 1;
    if (fails && !afterwards) throw new Error(failing);
    const results = await work();
    if (fails) throw new Error(failing);
    for (const { meta } of results) {
      usage.rowsRead += meta.rows_read;
      usage.rowsWritten += meta.rows_written;
    }
    return results;
  };
  const originals = new WeakMap<object, D1PreparedStatement>();
  const wrap = (statement: D1PreparedStatement): object => {
    const wrapped = {
      bind: (...parameters: unknown[]) => wrap(statement.bind(...parameters)),
      all: async () => (await run(async () => [await statement.all()]))[0],
    };
    originals.set(wrapped, statement);
    return wrapped;
  };
  const client = {
    prepare: (sql: string) => wrap(database.prepare(sql)),
    batch: (statements: object[]) => run(() => database.batch(statements.map((each) => originals.get(each)!))),
    withSession() {
      throw new Error('only the primary has the latest data');
    },
  };
  return {
    client: client as unknown as D1Database,
    behavior,
    usage() {
      const before = usage;
      usage = { calls: 0, rowsRead: 0, rowsWritten: 0 };
      return before;
    },
  };
}
