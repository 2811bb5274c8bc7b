import { createSessions, type Session, type SessionDriver } from '@coatcheck/session-core';

/** What visitors do. Each visit is a request of its own, with the cookie of an earlier one. */
export interface Visits {
  /** Commits what `act` does with the session. Resolves to the cookie that the browser has afterwards. */
  visit(act: (session: Session) => unknown, cookie?: string, on?: SessionDriver): Promise<string>;
  /** A visit that sets `user` to `ada` in a new session. */
  signIn(on?: SessionDriver): Promise<string>;
  /** The value of `user`. */
  userOf(cookie: string, on?: SessionDriver): Promise<unknown>;
}

/** @param driver the driver of a visit that names none. It is called for each visit. */
export function visitsOn(driver: () => SessionDriver): Visits {
  const visits: Visits = {
    async visit(act, cookie = '', on = driver()) {
      const session = createSessions({ driver: on }).open(cookie);
      await act(session);
      return (await session.commit())?.split(';')[0] ?? cookie;
    },
    signIn: (on) => visits.visit((session) => session.set('user', 'ada'), '', on),
    userOf: (cookie, on = driver()) => createSessions({ driver: on }).open(cookie).get('user'),
  };
  return visits;
}
