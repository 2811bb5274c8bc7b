// What workerd provides to the modules of a Worker, as far as the driver needs it.
declare module 'cloudflare:workers' {
  export const env: Record<string, unknown>;
}
