import { createSessions } from '@coatcheck/session-core';
import { recordKey, type SessionDriver, type SessionDriverError } from '@coatcheck/session-core/driver';

/** What a visitor does in one request: one operation of the backend, and therefore one deadline. */
export type Kind = 'read' | 'write' | 'sign-out';

export interface Visit {
  kind: Kind;
  /** When it was begun, by `performance.now()`. */
  at: number;
  ms: number;
  error?: SessionDriverError | undefined;
}

/** Visitors of one site. What each was told is kept, and held against what is stored in the end. */
export interface Visits {
  /** All visits so far. */
  readonly all: readonly Visit[];
  /** Where the sessions lie in the backend. */
  keys(): Promise<string[]>;
  /** Never rejects. */
  visit(kind: Kind): Promise<Visit>;
  /** Asks the backend for everything that was promised. Rejects when it fails. */
  verify(): Promise<Verdict>;
}

export interface Verdict {
  /** Acknowledged writes. */
  acknowledged: number;
  /** When those that are missing were begun. */
  lost: number[];
  /** What else is not as it was promised. */
  problems: string[];
}

interface Visitor {
  id: string;
  cookie: string;
  /** Acknowledged writes by key, and when they were begun. */
  promised: Map<string, number>;
  /** Writes of which the visitor was told that nothing was stored. */
  refused: Set<string>;
}

/** By what they mean, these say that nothing was stored; the other two leave it open. */
const NOT_STORED = new Set(['unavailable', 'refused', 'configuration', 'invalid-data', 'invalid-id']);

export async function createVisits(driver: SessionDriver, visitors = 6): Promise<Visits> {
  const sessions = createSessions<Record<string, number>>({ driver });
  const all: Visit[] = [];
  const problems: string[] = [];
  let turn = 0;

  const enter = async (): Promise<Visitor> => {
    const session = sessions.open('');
    session.set('entered', 1);
    const cookie = (await session.commit())!.split(';')[0]!;
    return { id: session.sessionID!, cookie, promised: new Map([['entered', performance.now()]]), refused: new Set() };
  };
  const present = await Promise.all(Array.from({ length: visitors }, enter));
  // These are there to sign out, so that the others keep what they were promised.
  const leaving = await Promise.all(Array.from({ length: 3 * visitors }, enter));
  const gone: Visitor[] = [];

  const work = {
    async read(visitor: Visitor): Promise<void> {
      const entered = await sessions.open(visitor.cookie).get('entered');
      if (entered !== 1) problems.push('a failed read was taken for a missing session');
    },
    async write(visitor: Visitor, at: number): Promise<void> {
      const session = sessions.open(visitor.cookie);
      const key = `visit ${all.length} ${crypto.randomUUID()}`;
      session.set(key, 1);
      try {
        if (await session.commit()) problems.push('a session was replaced by another');
        visitor.promised.set(key, at);
      } catch (error) {
        if (NOT_STORED.has((error as SessionDriverError).code)) visitor.refused.add(key);
        throw error;
      }
    },
    async 'sign-out'(visitor: Visitor): Promise<void> {
      const session = sessions.open(visitor.cookie);
      session.destroy();
      await session.commit();
      gone.push(visitor);
    },
  };

  return {
    all,
    keys: () => Promise.all(present.map(({ id }) => recordKey(id))),

    async visit(kind) {
      const visitor = kind === 'sign-out' ? leaving.pop()! : present[(turn += 1) % present.length]!;
      const at = performance.now();
      const visit: Visit = { kind, at, ms: 0 };
      await work[kind](visitor, at).catch((error: SessionDriverError) => (visit.error = error));
      visit.ms = performance.now() - at;
      all.push(visit);
      return visit;
    },

    async verify() {
      const verdict: Verdict = { acknowledged: 0, lost: [], problems: [...problems] };
      for (const { cookie, promised, refused } of [...present, ...leaving]) {
        const stored = new Set(await sessions.open(cookie).keys());
        for (const [key, at] of promised) if (!stored.has(key)) verdict.lost.push(at);
        for (const key of refused)
          if (stored.has(key)) verdict.problems.push('a write was stored although its error says that nothing was');
        verdict.acknowledged += promised.size;
      }
      for (const { cookie } of gone) {
        if ((await sessions.open(cookie).keys()).length > 0)
          verdict.problems.push('a session still exists after its sign-out');
      }
      return verdict;
    },
  };
}
