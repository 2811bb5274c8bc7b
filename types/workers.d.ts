// The part of workerd's modules that drivers use.
declare module 'cloudflare:workers' {
  export const env: Record<string, unknown>;

  export class DurableObject {
    protected ctx: { readonly storage: unknown };
  }
}
