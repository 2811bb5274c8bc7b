import type { SessionDriverConfig } from 'astro';

/** Our Redis runtime, in an entrypoint of the site's own that reads the address from `astro:env`. */
export function ownDriver(): SessionDriverConfig {
  return { entrypoint: new URL('./runtime.js', import.meta.url) };
}
