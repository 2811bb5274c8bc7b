declare namespace App {
  /** Session keys that are many, besides those of `session-schema.ts`. */
  interface SessionData {
    [line: `cart:${string}`]: number;
    [ticket: `ticket:${number}`]: true;
  }

  /** What the middleware finds out for every page. */
  interface Locals {
    user?: SessionData['user'];
    flash?: string;
    cartCount: number;
  }
}
