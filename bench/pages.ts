/**
 * What a request does with its session: the same on every library, and on every server.
 */
export interface PageSession {
  get(key: string): unknown;
  set(key: string, value: unknown): unknown;
}

export type Page = (session: PageSession) => unknown;

interface Line {
  sku: string;
  title: string;
  image: string;
  quantity: number;
  price: number;
}

const cart = (length: number): Line[] =>
  Array.from({ length }, (_, index) => ({
    sku: `SKU-${1000 + index}`,
    title: `A warm woollen coat in the colour number ${index}`,
    image: `/images/${1000 + index}.webp`,
    quantity: 1 + (index % 3),
    price: 49.9 + index,
  }));

/** 1.4 kB: a user, a cart of ten, a flash message and a token. */
const typical = {
  user: { id: 4711, name: 'Ada Lovelace', email: 'ada@example.com', roles: ['admin', 'editor'] },
  cart: cart(10),
  flash: 'Your changes were saved.',
  token: '2f1c9b0e-6d0a-4f57-9a51-0a7c6a3f9e11',
};

/** 50 kB: the same, and ten searches whose results are kept. */
const large = {
  ...typical,
  ...Object.fromEntries(Array.from({ length: 10 }, (_, index) => [`search${index}`, cart(38)])),
};

const fill =
  (data: Record<string, unknown>): Page =>
  async (session) => {
    for (const [key, value] of Object.entries(data)) await session.set(key, value);
  };

const someKeys = ['user', 'cart', 'flash', 'token', 'user'];
let count = 0;

const login = fill(typical);
const loginLarge = fill(large);
const read: Page = async (session) => ((await session.get('user')) as { name?: string } | undefined)?.name;
const write: Page = (session) => session.set('flash', `Saved for the ${++count}th time.`);
const change: Page = async (session) => {
  const lines = (await session.get('cart')) as Line[];
  lines[0]!.quantity = ++count;
  await session.set('cart', lines);
};
const same: Page = async (session) => session.set('user', await session.get('user'));
const atOnce: Page = async (session) => {
  await Promise.all(someKeys.map((key) => session.get(key)));
};
const inTurn: Page = async (session) => {
  for (const key of someKeys) await session.get(key);
};

export type PageName = 'login' | 'loginLarge' | 'read' | 'write' | 'change' | 'same' | 'atOnce' | 'inTurn';

/** By the path under which a server answers with it. */
export const pages: Record<PageName, Page> = { login, loginLarge, read, write, change, same, atOnce, inTurn };

/** The page that a server is asked for. */
export function pageAt(path: string): Page {
  return pages[path.replace('/', '') as PageName];
}
