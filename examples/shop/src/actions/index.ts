import { ActionError, defineAction } from 'astro:actions';
import { z } from 'astro/zod';

import { addOne } from '../cart';
import { findProduct } from '../products';

export const server = {
  addToCart: defineAction({
    accept: 'form',
    input: z.object({ sku: z.string() }),
    async handler({ sku }, { session }) {
      const product = findProduct(sku);
      if (!product) throw new ActionError({ code: 'NOT_FOUND', message: 'We have no such coat.' });
      await addOne(session, sku);
      session?.set('flash', `${product.name} hangs in your cart.`, { ttl: 60 });
    },
  }),
};
