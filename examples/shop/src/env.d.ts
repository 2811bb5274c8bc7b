declare namespace App {
  /** What a visitor's session holds. `Astro.session.get('user')` is typed by it. */
  interface SessionData {
    user: { name: string; since: Date };
    flash: string;
    recent: string[];
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
