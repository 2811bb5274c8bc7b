// What Astro's documentation says under "Unstorage compatibility": a driver of unstorage is named as the entrypoint ...
import type { SessionDriverConfig } from 'astro';

export function unstorageDriver(config: { max: number }): SessionDriverConfig {
  return { entrypoint: 'unstorage/drivers/lru-cache', config };
}

// ... or used by a runtime of the site's own.
export function wrappedUnstorageDriver(): SessionDriverConfig {
  return { entrypoint: new URL('./runtime.js', import.meta.url) };
}
