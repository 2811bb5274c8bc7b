import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { digits, spread, type Group, type Row } from './report.ts';

const kB = (bytes: number): string => `${(bytes / 1000).toFixed(2)} kB`;

interface Weight {
  minified: number;
  gzip: number;
  brotli: number;
}

/** What a bundler makes of some lines of an app, without the modules that are named. */
async function weigh(lines: string, without: string[] = []): Promise<Weight> {
  const { outputFiles } = await build({
    stdin: { contents: lines, resolveDir: import.meta.dirname },
    bundle: true,
    minify: true,
    write: false,
    format: 'esm',
    platform: 'node',
    target: 'node22',
    // Loaded by itself where there are secrets.
    external: ['cloudflare:*', './late-*', ...without],
  });
  const code = outputFiles[0]!.contents;
  return { minified: code.length, gzip: gzipSync(code, { level: 9 }).length, brotli: brotliCompressSync(code).length };
}

function size(
  name: string,
  what: string,
  lines: string,
  client: string[],
  reach?: { without: number; with: number },
): Row {
  return {
    name,
    what,
    reach: reach ? `${reach.without / 1000} / ${reach.with / 1000} kB` : '',
    async run() {
      const [bare, whole] = [await weigh(lines, ['devalue', ...client]), await weigh(lines, client)];
      return {
        cells: [bare, whole].map(({ minified, gzip, brotli }) => `${kB(minified)}: ${kB(gzip)}, ${kB(brotli)}`),
        ours: `${kB(bare.gzip)} / ${kB(whole.gzip)}`,
        ...(reach && { reached: bare.gzip <= reach.without && whole.gzip <= reach.with }),
      };
    },
  };
}

function sizeOf(backend: string, client: string[] = []): Row {
  const lines = `export { default } from '@coatcheck/session-${backend}/runtime'`;
  return size(`size-${backend}`, `runtime of session-${backend}`, lines, client);
}

export const sizes: Group = {
  title: 'Size',
  about:
    'What a bundler (esbuild) makes of it: minified; then compressed with gzip -9, which counts, and with brotli. Runtimes without their client ' +
    '(`lru-cache`, `ioredis`, `@upstash/redis`, `@netlify/blobs`, the drivers of unstorage), with core; `pnpm size` has a limit for each. Encryption is a ' +
    'row of its own: it is loaded where there are `secrets`. ' +
    "Beside ours: Astro's session, which comes with unstorage.",
  columns: ['without devalue', 'with devalue'],
  rows: [
    size('size-core', 'core, everything', `export * from '@coatcheck/session-core'`, [], {
      without: 6000,
      with: 10_000,
    }),
    size(
      'size-session',
      'core, `createSessions` alone',
      `export { createSessions } from '@coatcheck/session-core'`,
      [],
    ),
    size('size-encryption', 'core, encryption', `export * from '../packages/session-core/dist/late-encrypted.js'`, []),
    sizeOf('memory', ['lru-cache']),
    sizeOf('redis', ['ioredis']),
    sizeOf('upstash', ['@upstash/redis']),
    sizeOf('cloudflare-kv'),
    sizeOf('netlify-blobs', ['@netlify/blobs']),
    sizeOf('fs'),
    size('size-unstorage', 'session-unstorage', `export { fromUnstorage } from '@coatcheck/session-unstorage'`, []),
    size('size-astro', "Astro's session", `export * from './node_modules/astro/dist/core/session/runtime.js'`, []),
  ],
};

const run = promisify(execFile);

/** Milliseconds that a fresh process, in which a server could run already, spends on some lines. */
async function startTimes(lines: string, count: number): Promise<number[]> {
  const script = `
    await import('node:http');
    const startedAt = performance.now();
    ${lines}
    process.stdout.write(String(performance.now() - startedAt));`;
  const samples: number[] = [];
  for (let index = 0; index < count; index++) {
    const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', script], {
      cwd: import.meta.dirname,
    });
    samples.push(Number(stdout));
  }
  return samples;
}

function start(name: string, what: string, lines: string, reach?: number): Row {
  return {
    name,
    what,
    reach: reach ? `${reach} ms` : '',
    async run(quick) {
      const samples = await startTimes(lines, quick ? 3 : 10);
      const best = Math.min(...samples);
      return { cells: [spread(samples, 'ms'), `${digits(best)} ms`], ...(reach && { reached: best <= reach }) };
    },
  };
}

const importAndMake = (runtime: string, config = '') => `(await import('${runtime}')).default(${config});`;

const startOf = (backend: string, config?: string): Row =>
  start(`start-${backend}`, `session-${backend}`, importAndMake(`@coatcheck/session-${backend}/runtime`, config), 5);

export const starts: Group = {
  title: 'Start',
  about:
    'How long a fresh process spends on importing a runtime and making the driver, until its first use: that loads the client. Beside ours: ' +
    'what importing the client takes by itself.',
  columns: ['median and quartiles', 'best'],
  rows: [
    startOf('memory'),
    startOf('redis', `{ url: 'redis://127.0.0.1:1' }`),
    startOf('upstash', `{ url: 'http://127.0.0.1:1', token: 'none' }`),
    startOf('cloudflare-kv'),
    startOf('netlify-blobs'),
    startOf('fs'),
    start(
      'start-session-unstorage',
      'session-unstorage',
      `const { fromUnstorage } = await import('@coatcheck/session-unstorage');
      fromUnstorage({ getItem() {}, setItem() {}, removeItem() {} });`,
      5,
    ),
    start('start-ioredis', 'ioredis', `await import('ioredis');`),
    start('start-unstorage', "unstorage's Redis driver", importAndMake('unstorage/drivers/redis', '{}')),
  ],
};
