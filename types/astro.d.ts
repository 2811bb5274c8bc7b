// The part of Astro's modules that the entrypoints of drivers use.
declare module 'astro:env/server' {
  export function getSecret(name: string): string | undefined;
}

interface ImportMeta {
  readonly env: { readonly DEV: boolean };
}
