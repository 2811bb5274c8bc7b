// Astro's documentation of session drivers, as it stands there.
import type { SessionDriverConfig } from 'astro';

export interface Config {
  max?: number;
}

export function documentedDriver(config: Config = {}): SessionDriverConfig {
  return {
    entrypoint: new URL('./runtime.js', import.meta.url),
    config,
  };
}
