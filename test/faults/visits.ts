import { recordKey, type SessionDriverError } from '@coatcheck/session-core/driver';
import type { VisitedSite } from './visited-site.ts';

/** What a visitor does in one request. Each kind is one operation on the backend, so it must end within one timeout. */
export type Kind = 'read' | 'write' | 'sign-out';

/** One request of a visitor, and its result. */
export interface Visit {
  kind: Kind;
  /** When it started, by `performance.now()`. */
  at: number;
  /** How long it took, in milliseconds. */
  ms: number;
  /** Undefined if it succeeded. */
  error?: SessionDriverError | undefined;
}

/** The visitors of one site. Records the result of each request, to compare it with what is stored in the end. */
export interface Visits {
  /** All visits so far. */
  readonly all: readonly Visit[];
  /** Resolves to the keys of the sessions in the backend, without those that are for signing out. */
  keys(): Promise<string[]>;
  /** Sends one request as one of the visitors. Never rejects: a failure is in `error`. */
  visit(kind: Kind): Promise<Visit>;
  /** Reads all sessions, and compares them with the results of the requests. Rejects if a read fails. */
  verify(): Promise<Verdict>;
}

/** How the stored sessions differ from the results of the requests. */
export interface Verdict {
  /** The number of acknowledged writes. */
  acknowledged: number;
  /** The start of each acknowledged write that is missing, by `performance.now()`. */
  lost: number[];
  /** Descriptions of all other differences. */
  problems: string[];
}

interface Visitor {
  id: string;
  cookie: string;
  /** The start of each acknowledged write, by session key. */
  acknowledged: Map<string, number>;
  /** The session keys of writes whose error says that nothing was stored. */
  rejected: Set<string>;
}

/** The error codes that say that nothing was stored. After `timeout` and `interrupted`, the outcome is unknown. */
const NOT_STORED = new Set(['unavailable', 'refused', 'configuration', 'invalid-data', 'invalid-id']);

export async function createVisits(site: VisitedSite, visitors = 6): Promise<Visits> {
  const all: Visit[] = [];
  const problems: string[] = [];
  let visitCount = 0;

  const createVisitor = async (): Promise<Visitor> => {
    const { id, cookie } = await site.enter();
    return { id, cookie, acknowledged: new Map([['entered', performance.now()]]), rejected: new Set() };
  };
  // One after another. Many new Durable Objects at once, each with a file of its own, could take longer than the timeout.
  const createVisitors = async (count: number): Promise<Visitor[]> => {
    const created: Visitor[] = [];
    while (created.length < count) created.push(await createVisitor());
    return created;
  };
  const staying = await createVisitors(visitors);
  // Only these visitors sign out. The sessions of the others keep all their writes.
  const leaving = await createVisitors(3 * visitors);
  const signedOut: Visitor[] = [];

  const work = {
    async read(visitor: Visitor): Promise<void> {
      if ((await site.read(visitor.cookie)) !== 1) problems.push('a failed read was taken for a missing session');
    },
    async write(visitor: Visitor, at: number): Promise<void> {
      const key = `visit ${all.length} ${crypto.randomUUID()}`;
      try {
        if (await site.write(visitor.cookie, key)) problems.push('a session was replaced by another');
        visitor.acknowledged.set(key, at);
      } catch (error) {
        if (NOT_STORED.has((error as SessionDriverError).code)) visitor.rejected.add(key);
        throw error;
      }
    },
    async 'sign-out'(visitor: Visitor): Promise<void> {
      await site.signOut(visitor.cookie);
      signedOut.push(visitor);
    },
  };

  return {
    all,
    keys: () => Promise.all(staying.map(({ id }) => recordKey(id))),

    async visit(kind) {
      const visitor = kind === 'sign-out' ? leaving.pop()! : staying[(visitCount += 1) % staying.length]!;
      const at = performance.now();
      const visit: Visit = { kind, at, ms: 0 };
      await work[kind](visitor, at).catch((error: SessionDriverError) => (visit.error = error));
      visit.ms = performance.now() - at;
      all.push(visit);
      return visit;
    },

    async verify() {
      const verdict: Verdict = { acknowledged: 0, lost: [], problems: [...problems] };
      for (const { cookie, acknowledged, rejected } of [...staying, ...leaving]) {
        const stored = new Set(await site.keys(cookie));
        for (const [key, at] of acknowledged) if (!stored.has(key)) verdict.lost.push(at);
        for (const key of rejected)
          if (stored.has(key)) verdict.problems.push('a write was stored although its error says that nothing was');
        verdict.acknowledged += acknowledged.size;
      }
      for (const { cookie } of signedOut) {
        if ((await site.keys(cookie)).length > 0) verdict.problems.push('a session still exists after its sign-out');
      }
      return verdict;
    },
  };
}
