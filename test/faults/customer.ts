import { createVisitor, type Answer } from '../support/http.ts';

/** Somebody who shops, does one thing after another, and keeps what every answer promised. */
export interface Customer {
  /** Does one thing, chosen by chance, and holds what the answer shows against what was promised before. */
  act(): Promise<void>;
  /** Looks at everything once more. False when the shop gave no answer. */
  lookAgain(): Promise<boolean>;
  /** Ids that an answer has said to be worthless. */
  left: Set<string>;
}

/** What all customers saw, in one place. */
export interface Notes {
  answered: number;
  failed: number;
  /** Answered requests that changed something. */
  writes: number;
  signIns: number;
  signOuts: number;
  /** Carts that were empty after a sign-in that failed: Astro removes the old session before it stores the new one. */
  lostInFailedSignIns: number;
  /** How long the slowest request of each kind took, and after how long it would have been too late. */
  slowest: Map<string, { ms: number; limitMs: number }>;
  violations: string[];
}

export interface CustomerOptions {
  url: string;
  name: string;
  timeoutMs: number;
  /** How much later than its operations' deadlines an answer may be. */
  slackMs: number;
  random: () => number;
  notes: Notes;
}

/** What may be the answer to a question: more than one thing after a request whose outcome nobody was told. */
type Possible<Value> = Set<Value>;

/** A visitor whose cookie names no session: Astro asks for it again with every `get`, and the shop has eight products and three looks at them. */
const READS_OF_NOTHING = 26;
const SKUS = ['drizzle', 'overture', 'encore', 'harbour'];

export function createNotes(): Notes {
  const counts = { answered: 0, failed: 0, writes: 0, signIns: 0, signOuts: 0, lostInFailedSignIns: 0 };
  return { ...counts, slowest: new Map(), violations: [] };
}

export function createCustomer({ url, name, timeoutMs, slackMs, random, notes }: CustomerOptions): Customer {
  const visitor = createVisitor(url);
  const left = new Set<string>();
  let cart = new Map<string, Possible<number>>();
  let user: Possible<string> = new Set(['']);
  let signedIn = 0;
  /** Whether a sign-in failed since the cart was last seen, and it held something. */
  let mayHaveLostCart = false;

  const violated = (text: string): void => void notes.violations.push(`${name}: ${text}`);
  const pieces = (sku: string): Possible<number> => cart.get(sku) ?? new Set([0]);

  /** Whether there is a session, whatever became of requests that failed. */
  const isCertain = (): boolean => !user.has('') || [...cart.values()].some((counts) => !counts.has(0));

  /** Undefined when the request failed. `operations`: how many of the backend's the request makes, one after the other. */
  const request = async (
    what: string,
    operations: number,
    path: string,
    init?: RequestInit,
  ): Promise<Answer | undefined> => {
    const hadSession = !visitor.sessionId() || isCertain();
    let answer: Answer;
    try {
      answer = await visitor.fetch(path, init);
    } catch (error) {
      violated(`no answer to ${what}: ${String((error as Error).cause ?? error)}`);
      return undefined;
    }
    const limitMs = (hadSession ? operations : operations + READS_OF_NOTHING) * timeoutMs + slackMs;
    if (answer.ms > limitMs) violated(`${what} took ${Math.round(answer.ms)} ms`);
    const kind = hadSession ? what : 'anything without a session';
    if (answer.ms > (notes.slowest.get(kind)?.ms ?? 0)) notes.slowest.set(kind, { ms: answer.ms, limitMs });
    if (answer.status < 400) notes.answered += 1;
    else if (answer.status === 500) notes.failed += 1;
    else violated(`${what} was answered with ${answer.status}`);
    return answer.status < 400 ? answer : undefined;
  };

  const post = (what: string, operations: number, path: string, form: Record<string, string>) =>
    request(what, operations, path, { method: 'POST', body: new URLSearchParams(form) });

  const addOne = async (sku: string): Promise<void> => {
    const body = JSON.stringify({ sku });
    const headers = { 'content-type': 'application/json' };
    const answer = await request('adding a piece', 2, '/api/cart', { method: 'POST', body, headers });
    const more = [...pieces(sku)].map((count) => Math.min(count + 1, 9));
    cart.set(sku, new Set(answer ? more : [...pieces(sku), ...more]));
    if (answer) notes.writes += 1;
  };

  const setLine = async (sku: string, quantity: number): Promise<void> => {
    const answer = await post('setting a line', 2, '/cart', { sku, quantity: String(quantity) });
    cart.set(sku, new Set(answer ? [quantity] : [...pieces(sku), quantity]));
    if (answer) notes.writes += 1;
  };

  const lookAtCart = async (): Promise<boolean> => {
    const answer = await request('looking at the cart', 1, '/api/cart');
    if (!answer) return false;
    const { lines } = JSON.parse(answer.body) as { lines: { sku: string; quantity: number }[] };
    const seen = new Map(lines.map(({ sku, quantity }) => [sku, quantity]));
    for (const sku of SKUS) {
      const count = seen.get(sku) ?? 0;
      if (!pieces(sku).has(count)) violated(`the cart holds ${count} ${sku}, and not ${[...pieces(sku)].join(' or ')}`);
    }
    if (mayHaveLostCart && lines.length === 0) notes.lostInFailedSignIns += 1;
    mayHaveLostCart = false;
    cart = new Map([...seen].map(([sku, count]) => [sku, new Set([count])]));
    return true;
  };

  const lookForName = async (): Promise<boolean> => {
    // The page also deletes the message that it shows.
    const answer = await request('looking who is signed in', 2, '/sign-in');
    if (!answer) return false;
    const seen = /<h1[^>]*>Good evening, ([^.]+)\.<\/h1>/.exec(answer.body)?.[1] ?? '';
    if (!user.has(seen)) violated(`${seen || 'nobody'} is signed in, and not ${[...user].join(' or ') || 'nobody'}`);
    user = new Set([seen]);
    return true;
  };

  const signIn = async (): Promise<void> => {
    const before = visitor.sessionId();
    signedIn += 1;
    const next = `${name} ${signedIn}`;
    const answer = await post('signing in', 3, '/sign-in', { name: next });
    if (answer) {
      notes.signIns += 1;
      user = new Set([next]);
      if (before && before === visitor.sessionId()) violated('the sign-in kept the id');
      if (before) left.add(before);
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
      notes.signOuts += 1;
      if (before) left.add(before);
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
    left,

    async act() {
      const chance = random();
      if (chance < 0.25) return addOne(pick());
      if (chance < 0.45) return setLine(pick(), quantity());
      if (chance < 0.65) {
        // Two tabs at once, on different lines. A visitor who has no session would get two.
        if (!isCertain()) return addOne(SKUS[0]!);
        await Promise.all([setLine(SKUS[0]!, quantity()), setLine(SKUS[1]!, quantity())]);
        return;
      }
      if (chance < 0.8) return void (await lookAtCart());
      if (chance < 0.9) return void (await lookForName());
      if (chance < 0.96) return signIn();
      return signOut();
    },

    lookAgain: async () => (await lookAtCart()) && (await lookForName()),
  };
}
