import type { APIContext } from 'astro';

import { findProduct, products } from './products';

type Session = APIContext['session'];

// Every line of the cart is a session key of its own, `cart:<sku>`. Coatcheck saves the keys that a request changed and leaves the
// others alone, so two tabs that change different lines never collide. With the whole cart under one key the last tab would win.

/** The lines of the cart, in the order of the catalogue. */
export async function cartLines(session: Session) {
  const lines = [];
  for (const product of products) {
    const quantity = await session?.get(`cart:${product.sku}`);
    if (quantity) lines.push({ product, quantity });
  }
  return lines;
}

/** How many pieces the cart holds. */
export async function cartCount(session: Session) {
  return (await cartLines(session)).reduce((count, line) => count + line.quantity, 0);
}

/** Sets how many pieces of a product the cart holds: 1 to 9; anything less takes the line out. */
export function setLine(session: Session, sku: string, quantity: number) {
  if (!findProduct(sku)) return;
  if (quantity >= 1) session?.set(`cart:${sku}`, Math.min(Math.floor(quantity), 9));
  else session?.delete(`cart:${sku}`);
}

/** Adds one piece. Two of these on one line at the same moment may count as one: on one key the last write wins. */
export async function addOne(session: Session, sku: string) {
  setLine(session, sku, ((await session?.get(`cart:${sku}`)) ?? 0) + 1);
}
