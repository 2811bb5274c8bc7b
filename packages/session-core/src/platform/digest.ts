/** Resolves to the hash of a string (as UTF-8), computed by the Web Crypto API, which every runtime has. */
export async function digest(algorithm: 'SHA-1' | 'SHA-256', text: string): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest(algorithm, new TextEncoder().encode(text)));
}
