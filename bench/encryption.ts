import { createCipheriv, randomBytes, webcrypto } from 'node:crypto';
import { tracingChannel } from 'node:diagnostics_channel';
import memory from '@coatcheck/session-memory/runtime';
import { chacha20poly1305 } from '@noble/ciphers/chacha.js';
import { cpuOf, repeat, takeTurns } from './measure.ts';
import { pages } from './pages.ts';
import { spread, type Group, type Row } from './report.ts';
import { session, visitorOf } from './subjects.ts';

const key = randomBytes(32);
const nonce = randomBytes(12);
const associated = randomBytes(48);

const nodeCipher = (name: 'chacha20-poly1305' | 'aes-256-gcm') => (data: Uint8Array) => {
  const cipher = createCipheriv(name as 'chacha20-poly1305', key, nonce, { authTagLength: 16 });
  cipher.setAAD(associated, { plaintextLength: data.length });
  return Buffer.concat([cipher.update(data), cipher.final(), cipher.getAuthTag()]);
};

async function webCipher(): Promise<(data: Uint8Array<ArrayBuffer>) => Promise<unknown>> {
  const webKey = await webcrypto.subtle.importKey('raw', key, 'AES-GCM', false, ['encrypt']);
  const options = { name: 'AES-GCM', iv: nonce, additionalData: associated };
  return (data) => webcrypto.subtle.encrypt(options, webKey, data);
}

function ciphers(name: string, bytes: number): Row {
  return {
    name,
    what: `a value of ${bytes / 1000} kB`,
    reach: '',
    async run(quick) {
      const data = randomBytes(bytes);
      const web = await webCipher();
      const turn = (encrypt: (value: typeof data) => unknown) => () => repeat(() => encrypt(data), 20);
      const turns = {
        noble: turn((value) => chacha20poly1305(key, nonce, associated).encrypt(value)),
        chacha: turn(nodeCipher('chacha20-poly1305')),
        aes: turn(nodeCipher('aes-256-gcm')),
        web: turn(web),
      };
      const took = await takeTurns(turns, quick ? 10 : 60);
      return { cells: (['noble', 'chacha', 'aes', 'web'] as const).map((cipher) => spread(cpuOf(took[cipher]), 'µs')) };
    },
  };
}

export const encryption: Group = {
  title: 'Ciphers',
  about: 'CPU time of encrypting one value, by what is used here (`@noble/ciphers`) and by what the platform has.',
  columns: [
    '@noble/ciphers, ChaCha20-Poly1305',
    'Node, ChaCha20-Poly1305',
    'Node, AES-256-GCM',
    'Web Crypto, AES-256-GCM',
  ],
  rows: [ciphers('encrypt-1k', 1000), ciphers('encrypt-50k', 50_000)],
};

/** One visit after another: to a driver whose values are encrypted, and to one to which one subscriber. */
const listening: Row = {
  name: 'listen',
  what: 'typical: read one key',
  reach: '',
  async run(quick) {
    const channel = tracingChannel('coatcheck:read');
    const nothing = (): void => undefined;
    const listeners = { start: nothing, end: nothing, asyncStart: nothing, asyncEnd: nothing, error: nothing };
    const plain = session(memory());
    const encrypted = session(memory({ secrets: ['a-secret-of-the-bench-0123456789'] }));
    const plainRequest = await visitorOf(plain, pages.login);
    const sealedRequest = await visitorOf(encrypted, pages.login);
    const took = await takeTurns(
      {
        nobody: () => repeat(() => plain(plainRequest, pages.read), 20),
        somebody: async () => {
          channel.subscribe(listeners);
          const sample = await repeat(() => plain(plainRequest, pages.read), 20);
          channel.unsubscribe(listeners);
          return sample;
        },
        asking: () => repeat(() => channel.hasSubscribers, 20),
        encrypted: () => repeat(() => encrypted(sealedRequest, pages.read), 20),
      },
      quick ? 20 : 120,
    );
    return {
      cells: (['nobody', 'asking', 'somebody', 'encrypted'] as const).map((subject) =>
        spread(cpuOf(took[subject]), 'µs'),
      ),
    };
  },
};

export const observability: Group = {
  title: 'Watching and encryption',
  about:
    '`Session` on memory, CPU time of a request: while no subscriber to the tracing channel, and what it takes to find that out, which is all that ' +
    'tracing costs then; while somebody does; and with `secrets`.',
  columns: ['no subscriber', 'finding that out', 'one subscriber', 'encrypted'],
  rows: [listening],
};
