import { z } from 'astro/zod';

// What a visitor's session holds. The integration in `astro.config.mjs` types `Astro.session.get('user')` by it.
export default {
  user: z.object({ name: z.string(), since: z.date() }),
  flash: z.string(),
  recent: z.array(z.string()),
};
