import type { APIRoute } from 'astro';

import { addOne, cartCount, cartLines } from '../../cart';
import { findProduct } from '../../products';

/** What is in the cart. */
export const GET: APIRoute = async ({ session }) => {
  const lines = await cartLines(session);
  return Response.json({
    count: await cartCount(session),
    lines: lines.map(({ product, quantity }) => ({ sku: product.sku, quantity })),
  });
};

/** Adds one piece: `{ "sku": "drizzle" }`. */
export const POST: APIRoute = async ({ request, session }) => {
  const { sku } = await request.json();
  if (!findProduct(sku)) return Response.json({ error: 'no such coat' }, { status: 404 });
  await addOne(session, sku);
  return Response.json({ count: await cartCount(session) });
};
