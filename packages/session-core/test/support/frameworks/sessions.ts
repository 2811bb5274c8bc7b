import { createSessions, type Session } from '@coatcheck/session-core';
import memory from '@coatcheck/session-memory/runtime';

export interface Data {
  user: string;
  visits: number;
}

export const sessions = createSessions<Data>({ driver: memory() });
export type VisitorSession = Session<Data>;
