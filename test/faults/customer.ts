import { createVisitor, type Answer } from '../support/http.ts';

/** A simulated customer of the shop. It records what each response acknowledges, and compares it with later responses. */
export interface Customer {
  /** Sends a random request, in one case two at once, and checks the response. */
  act(): Promise<void>;
  /** Checks the cart and the user. Resolves to false if a request failed. */
  verify(): Promise<boolean>;
  /** The session ids that a response has made invalid, by a sign-in or a sign-out. */
  invalidIds: Set<string>;
}

/** What all customers have observed together. */
export interface Observations {
  /** The number of requests that succeeded. */
  answered: number;
  /** The number of requests that were answered with status 500. */
  failed: number;
  /** The number of requests that changed a cart and succeeded. */
  writes: number;
  /** The number of sign-ins that succeeded. */
  signIns: number;
  /** The number of sign-outs that succeeded. */
  signOuts: number;
  /** The number of carts that were lost in a failed sign-in: Astro removes the old session before it stores the new one. */
  lostInFailedSignIns: number;
  /** By kind of request: how long the slowest one took, and how long it was allowed to take, in milliseconds. */
  slowest: Map<string, { ms: number; limitMs: number }>;
  /** Descriptions of everything that contradicts an earlier response, or took too long. */
  violations: string[];
}

/** The options of `createCustomer`. */
export interface CustomerOptions {
  /** The URL of the shop. */
  url: string;
  /** The customer's name, for violations and sign-ins. */
  name: string;
  /** The option `timeout` of the shop's driver, in milliseconds. */
  timeoutMs: number;
  /** How much longer than the timeouts of its operations a request may take, in milliseconds. */
  slackMs: number;
  /** Returns a number from 0 to 1, like `Math.random`. */
  random: () => number;
  /** Shared by all customers. */
  observations: Observations;
}

/** All values that may be stored. After a request with an unknown outcome, there is more than one. */
type Possible<Value> = Set<Value>;

/**
 * How many more reads a request may make if its cookie has the id of a missing session. Astro then reads the session again with each `get`.
 * A request calls `get` for the user and the flash message, and up to three times for each of the shop's eight products: 2 + 3 * 8.
 */
const READS_OF_MISSING_SESSION = 26;
const SKUS = ['drizzle', 'overture', 'encore', 'harbour'];

/** Creates observations in which nothing has happened yet. */
export function createObservations(): Observations {
  const counts = { answered: 0, failed: 0, writes: 0, signIns: 0, signOuts: 0, lostInFailedSignIns: 0 };
  return { ...counts, slowest: new Map(), violations: [] };
}

/** Creates a customer with a browser of its own. It has no session yet. */
export function createCustomer({ url, name, timeoutMs, slackMs, random, observations }: CustomerOptions): Customer {
  const visitor = createVisitor(url);
  const invalidIds = new Set<string>();
  /** The possible quantities by product. A product that is missing here is not in the cart. */
  let cart = new Map<string, Possible<number>>();
  /** The possible names of the user. An empty name stands for a visitor who is not signed in. */
  let user: Possible<string> = new Set(['']);
  let signInCount = 0;
  /** Whether a sign-in has failed since the last look at the cart, when the cart may not have been empty. */
  let mayHaveLostCart = false;

  const violated = (text: string): void => void observations.violations.push(`${name}: ${text}`);
  const quantitiesOf = (sku: string): Possible<number> => cart.get(sku) ?? new Set([0]);

  /** Whether there is a session, no matter what the outcomes of failed requests were. */
  const hasCertainSession = (): boolean => !user.has('') || [...cart.values()].some((counts) => !counts.has(0));

  /**
   * Sends a request, and checks how long it takes. Resolves to undefined if it failed.
   *
   * @param what the kind of request, for violations.
   * @param operations how many operations on the backend the request makes, one after the other.
   */
  const request = async (
    what: string,
    operations: number,
    path: string,
    init?: RequestInit,
  ): Promise<Answer | undefined> => {
    const mayHaveStaleCookie = Boolean(visitor.sessionId()) && !hasCertainSession();
    let answer: Answer;
    try {
      answer = await visitor.fetch(path, init);
    } catch (error) {
      violated(`no answer to ${what}: ${String((error as Error).cause ?? error)}`);
      return undefined;
    }
    const reads = mayHaveStaleCookie ? READS_OF_MISSING_SESSION : 0;
    const limitMs = (operations + reads) * timeoutMs + slackMs;
    if (answer.ms > limitMs) violated(`${what} took ${Math.round(answer.ms)} ms`);
    const kind = mayHaveStaleCookie ? 'anything without a session' : what;
    if (answer.ms > (observations.slowest.get(kind)?.ms ?? 0))
      observations.slowest.set(kind, { ms: answer.ms, limitMs });
    if (answer.status < 400) observations.answered += 1;
    else if (answer.status === 500) observations.failed += 1;
    else violated(`${what} was answered with ${answer.status}`);
    return answer.status < 400 ? answer : undefined;
  };

  const post = (what: string, operations: number, path: string, form: Record<string, string>) =>
    request(what, operations, path, { method: 'POST', body: new URLSearchParams(form) });

  const addOne = async (sku: string): Promise<void> => {
    const body = JSON.stringify({ sku });
    const headers = { 'content-type': 'application/json' };
    const answer = await request('adding a piece', 2, '/api/cart', { method: 'POST', body, headers });
    const more = [...quantitiesOf(sku)].map((count) => Math.min(count + 1, 9));
    cart.set(sku, new Set(answer ? more : [...quantitiesOf(sku), ...more]));
    if (answer) observations.writes += 1;
  };

  const setLine = async (sku: string, quantity: number): Promise<void> => {
    const answer = await post('setting a line', 2, '/cart', { sku, quantity: String(quantity) });
    cart.set(sku, new Set(answer ? [quantity] : [...quantitiesOf(sku), quantity]));
    if (answer) observations.writes += 1;
  };

  const checkCart = async (): Promise<boolean> => {
    const answer = await request('looking at the cart', 1, '/api/cart');
    if (!answer) return false;
    const { lines } = JSON.parse(answer.body) as { lines: { sku: string; quantity: number }[] };
    const seen = new Map(lines.map(({ sku, quantity }) => [sku, quantity]));
    for (const sku of SKUS) {
      const count = seen.get(sku) ?? 0;
      if (!quantitiesOf(sku).has(count))
        violated(`the cart holds ${count} ${sku}, and not ${[...quantitiesOf(sku)].join(' or ')}`);
    }
    if (mayHaveLostCart && lines.length === 0) observations.lostInFailedSignIns += 1;
    mayHaveLostCart = false;
    cart = new Map([...seen].map(([sku, count]) => [sku, new Set([count])]));
    return true;
  };

  const checkUser = async (): Promise<boolean> => {
    // This request makes two operations, because the page also deletes the flash message that it shows.
    const answer = await request('looking who is signed in', 2, '/sign-in');
    if (!answer) return false;
    const seen = /<h1[^>]*>Good evening, ([^.]+)\.<\/h1>/.exec(answer.body)?.[1] ?? '';
    if (!user.has(seen)) violated(`${seen || 'nobody'} is signed in, and not ${[...user].join(' or ') || 'nobody'}`);
    user = new Set([seen]);
    return true;
  };

  const signIn = async (): Promise<void> => {
    const before = visitor.sessionId();
    signInCount += 1;
    const next = `${name} ${signInCount}`;
    const answer = await post('signing in', 3, '/sign-in', { name: next });
    if (answer) {
      observations.signIns += 1;
      user = new Set([next]);
      if (before && before === visitor.sessionId()) violated('the sign-in kept the id');
      if (before) invalidIds.add(before);
      return;
    }
    mayHaveLostCart ||= [...cart.values()].some((counts) => !counts.has(0));
    for (const [sku, counts] of cart) cart.set(sku, new Set([...counts, 0]));
    user = new Set([...user, next, '']);
  };

  const signOut = async (): Promise<void> => {
    const before = visitor.sessionId();
    const answer = await post('signing out', 2, '/sign-out', {});
    if (answer) {
      observations.signOuts += 1;
      if (before) invalidIds.add(before);
      if (visitor.sessionId()) violated('the sign-out kept the cookie');
      cart = new Map();
      user = new Set(['']);
      mayHaveLostCart = false;
      return;
    }
    for (const [sku, counts] of cart) cart.set(sku, new Set([...counts, 0]));
    user = new Set([...user, '']);
  };

  const pick = (): string => SKUS[Math.floor(random() * SKUS.length)]!;
  const quantity = (): number => Math.floor(random() * 10);

  return {
    invalidIds,

    async act() {
      const chance = random();
      if (chance < 0.25) return addOne(pick());
      if (chance < 0.45) return setLine(pick(), quantity());
      if (chance < 0.65) {
        // Two tabs send requests at once, about different products. Without a session, each of them would create one.
        if (!hasCertainSession()) return addOne(SKUS[0]!);
        await Promise.all([setLine(SKUS[0]!, quantity()), setLine(SKUS[1]!, quantity())]);
        return;
      }
      if (chance < 0.8) return void (await checkCart());
      if (chance < 0.9) return void (await checkUser());
      if (chance < 0.96) return signIn();
      return signOut();
    },

    verify: async () => (await checkCart()) && (await checkUser()),
  };
}
