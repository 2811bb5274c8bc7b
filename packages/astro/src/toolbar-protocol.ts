/** The path, under the site's `base`, at which `astro dev` answers the app in the dev toolbar. Its extension suits every `trailingSlash`. */
export const TOOLBAR_PATH = '/_coatcheck/session.json';

/** The header of every question. A page of another origin cannot send it without asking first. */
export const TOOLBAR_HEADER = 'x-coatcheck-toolbar';

/** What the app asks for, about the session of the cookie that comes with it. */
export type ToolbarQuestion =
  | { action: 'show' | 'expire' | 'regenerate' | 'destroy' }
  /** `reveal` answers with the value of one key. */
  | { action: 'reveal' | 'delete'; key: string };

/** The answer to `show`. */
export interface ShownSession {
  /** Null without a stored session. */
  session: { handle: string; created: string | null; expires: string | null; entries: ShownEntry[] } | null;
  /** Whether the browser has sent a session cookie. */
  hasCookie: boolean;
  requests: ShownRequest[];
}

/** A value of the session, without the value. */
export interface ShownEntry {
  key: string;
  type: string;
  bytes: number;
  /** Null: with the session. */
  expires: string | null;
}

/** A request of the session. */
export interface ShownRequest {
  method: string;
  path: string;
  at: number;
  operations: { operation: string; ms?: number; failed?: boolean }[];
  events: string[];
  /** The keys that the request has read, and those that it has set or deleted. */
  reads: string[];
  writes: string[];
}
