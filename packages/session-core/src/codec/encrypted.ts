import { chacha20poly1305 } from '@noble/ciphers/chacha.js';
import { hmac } from '@noble/hashes/hmac.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, utf8ToBytes } from '@noble/hashes/utils.js';
import { fromBase64url, toBase64url } from '../platform/base64url.ts';
import { type FieldCodec, ENCRYPTED } from './field-codec.ts';

import { fieldName, keyOfField } from './field.ts';

/**
 * The fields of one record, encrypted with a secret: ChaCha20-Poly1305 (RFC 8439) under a key of the record's own. A field lies as
 *
 *     ~<6: which secret><22: HMAC of the session key>  ->  <expires>:<base64url of nonce, ciphertext and tag>
 *
 * The seal holds the session key and the value; bound into it are the record, the name and the expiry, which stays readable for the
 * backend. Whatever is altered, cut, or put elsewhere cannot be opened.
 *
 * The nonce is an HMAC of all that (a synthetic one, as in RFC 8452): nonces need not be counted, and the same field is always the same
 * text, which is what `expect` compares. So a reader of the backend sees whether a value changed, when it expires and how long it is.
 */
export function encrypted(secret: string, recordKey: string): FieldCodec {
  const master = utf8ToBytes(secret);
  const start = ENCRYPTED + toBase64url(mac(master, 'coatcheck 1 id')).slice(0, 6);
  const cipherKey = mac(master, `coatcheck 1 cipher ${recordKey}`);
  let ownMacKey: Uint8Array | undefined;
  // Reading needs none.
  const macKey = (): Uint8Array => (ownMacKey ??= mac(master, `coatcheck 1 mac ${recordKey}`));
  const nameOf = (key: string): string => start + toBase64url(mac(macKey(), `name ${fieldName(key)}`).subarray(0, 16));
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
      if (!name.startsWith(start)) return undefined;
      try {
        const [head, body] = headAndBody(value);
        const bytes = fromBase64url(body);
        const content = decoder.decode(cipher(bytes.subarray(0, 12), name, head).decrypt(bytes.subarray(12)));
        const [length, rest] = headAndBody(content);
        const key = keyOfField(rest.slice(0, Number(length)));
        return key === undefined ? undefined : [key, `${head}:${rest.slice(Number(length))}`];
      } catch {
        // What cannot be opened is corrupt, in whichever way.
        return undefined;
      }
    },
  };
}

function mac(key: Uint8Array, text: string): Uint8Array {
  return hmac(sha256, key, utf8ToBytes(text));
}

/** What stands before the first colon, and what behind it. */
function headAndBody(text: string): [string, string] {
  const colon = text.indexOf(':');
  return [text.slice(0, colon), text.slice(colon + 1)];
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
