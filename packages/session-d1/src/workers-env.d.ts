// The part of workerd's modules that the driver uses.
declare module 'cloudflare:workers' {
  export const env: Record<string, unknown>;
}
