// What Astro provides to the modules of a site, as far as the entrypoint needs it.
declare module 'astro:env/server' {
  export function getSecret(name: string): string | undefined;
}

interface ImportMeta {
  readonly env: { readonly DEV: boolean };
}
