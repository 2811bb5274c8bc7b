import { chacha20poly1305 } from '@noble/ciphers/chacha.js';
import { hmac } from '@noble/hashes/hmac.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, utf8ToBytes } from '@noble/hashes/utils.js';
import { fromBase64url, toBase64url } from '../platform/base64url.ts';
import { type FieldCodec, ENCRYPTED } from './field-codec.ts';

import { fieldName, keyOfField } from './field.ts';

/**
 * The codec that encrypts the fields of one record with a secret: ChaCha20-Poly1305 (RFC 8439), with keys derived from the secret and the
 * record key. A field is stored as
 *
 *     ~<6 characters: id of the secret><22 characters: HMAC of the session key>  ->  <expires>:<base64url of nonce, ciphertext and tag>
 *
 * The ciphertext contains the session key and the value. It is authenticated together with the record key, the field name and the expiry.
 * The expiry stays in plaintext, because the backend needs it. A field that was altered, truncated or moved cannot be decrypted.
 *
 * The nonce is an HMAC of all of these (a synthetic nonce, as in RFC 8452). So no counter is needed, and encrypting the same field again
 * gives the same string, which `expect` relies on. In return, someone who can read the backend sees whether a value changed, when it
 * expires and how long it is.
 */
export function encrypted(secret: string, recordKey: string): FieldCodec {
  const master = utf8ToBytes(secret);
  const secretPrefix = ENCRYPTED + toBase64url(mac(master, 'coatcheck 1 id')).slice(0, 6);
  const cipherKey = mac(master, `coatcheck 1 cipher ${recordKey}`);
  let cachedMacKey: Uint8Array | undefined;
  // Derived on demand, because decryption does not need it.
  const macKey = (): Uint8Array => (cachedMacKey ??= mac(master, `coatcheck 1 mac ${recordKey}`));
  const nameOf = (key: string): string =>
    secretPrefix + toBase64url(mac(macKey(), `name ${fieldName(key)}`).subarray(0, 16));
  const cipher = (nonce: Uint8Array, name: string, head: string) =>
    chacha20poly1305(cipherKey, nonce, utf8ToBytes(`${name}:${head}`));

  return {
    name: nameOf,

    value(key, field) {
      const [head, body] = headAndBody(field);
      const name = nameOf(key);
      const inner = fieldName(key);
      const content = utf8ToBytes(`${inner.length}:${inner}${body}`);
      const nonce = hmac(sha256, macKey(), concatBytes(utf8ToBytes(`nonce ${name}:${head}:`), content)).subarray(0, 12);
      return `${head}:${toBase64url(concatBytes(nonce, cipher(nonce, name, head).encrypt(content)))}`;
    },

    read(name, value) {
      if (!name.startsWith(secretPrefix)) return undefined;
      try {
        const [head, body] = headAndBody(value);
        const bytes = fromBase64url(body);
        const content = decoder.decode(cipher(bytes.subarray(0, 12), name, head).decrypt(bytes.subarray(12)));
        const [length, rest] = headAndBody(content);
        const key = keyOfField(rest.slice(0, Number(length)));
        return key === undefined ? undefined : [key, `${head}:${rest.slice(Number(length))}`];
      } catch {
        // Whatever the reason, a field that cannot be decrypted is corrupt.
        return undefined;
      }
    },
  };
}

function mac(key: Uint8Array, text: string): Uint8Array {
  return hmac(sha256, key, utf8ToBytes(text));
}

/** The parts before and after the first colon. */
function headAndBody(text: string): [string, string] {
  const colon = text.indexOf(':');
  return [text.slice(0, colon), text.slice(colon + 1)];
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
