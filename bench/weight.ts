import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { median } from './measure.ts';
import { spread, type Group, type Row } from './report.ts';

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
    // Loaded at the first operation that needs it.
    external: ['cloudflare:*', './late-*', './target.js', ...without],
  });
  const code = outputFiles[0]!.contents;
  return { minified: code.length, gzip: gzipSync(code, { level: 9 }).length, brotli: brotliCompressSync(code).length };
}

/** @param late the modules that are loaded with devalue, at the first operation. */
function size(name: string, what: string, lines: string, client: string[], reachKb?: number, late: string[] = []): Row {
  return {
    name,
    what,
    reach: reachKb === undefined ? '' : `${reachKb} kB without devalue`,
    async run() {
      const [bare, whole] = [await weigh(lines, ['devalue', ...late, ...client]), await weigh(lines, client)];
      return {
        cells: [bare, whole].map(({ minified, gzip, brotli }) => `${kB(minified)}: ${kB(gzip)}, ${kB(brotli)}`),
        ours: `${kB(bare.gzip)} / ${kB(whole.gzip)}`,
        ...(reachKb !== undefined && { reached: bare.gzip <= reachKb * 1000 }),
      };
    },
  };
}

function sizeOf(backend: string, client: string[] = []): Row {
  const lines = `export { default } from '@coatcheck/session-${backend}/runtime'`;
  return size(`size-${backend}`, `runtime of session-${backend}`, lines, client, 14.5, ['./value.js']);
}

export const sizes: Group = {
  title: 'Size',
  about:
    'What a bundler (esbuild) makes of what an import loads: minified; then compressed with gzip -9, which counts, and with brotli. Runtimes come with ' +
    'core; `pnpm size` has a limit for each. What operations load later is not included, such as the client and the connection to it. Encryption is a ' +
    'row of its own: it is loaded where there are `secrets`. ' +
    "Beside ours: Astro's session, which comes with unstorage.",
  columns: ['without devalue', 'with devalue'],
  rows: [
    size('size-core', 'core, everything', `export * from '@coatcheck/session-core'`, [], 12),
    size(
      'size-session',
      'core, `createSessions` alone',
      `export { createSessions } from '@coatcheck/session-core'`,
      [],
      10,
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

const importOf = (module: string): string[] => ['--input-type=module', '--eval', `import '${module}'`];

type Process = [what: string, args: string[], reachMs?: number];

const START_MS = 10;
const runtimeOf = (backend: string): Process => [
  `session-${backend}`,
  importOf(`@coatcheck/session-${backend}/runtime`),
  START_MS,
];

/** By name of a row: what it measures, the arguments of Node, and how much longer than Node alone it may take. */
const processes: Record<string, Process> = {
  'start-node': ['Node alone: `node -e 0`', ['-e', '0']],
  'start-module': ['an empty module', importOf('data:text/javascript,')],
  'start-devalue': ['devalue', importOf('devalue')],
  'start-memory': runtimeOf('memory'),
  'start-redis': runtimeOf('redis'),
  'start-upstash': runtimeOf('upstash'),
  'start-cloudflare-kv': runtimeOf('cloudflare-kv'),
  'start-netlify-blobs': runtimeOf('netlify-blobs'),
  'start-fs': runtimeOf('fs'),
  'start-sqlite': runtimeOf('sqlite'),
  'start-postgres': runtimeOf('postgres'),
  'start-libsql': runtimeOf('libsql'),
  'start-session-unstorage': ['session-unstorage', importOf('@coatcheck/session-unstorage'), START_MS],
  'start-ioredis': ['ioredis', importOf('ioredis')],
  'start-unstorage': ["unstorage's Redis driver", importOf('unstorage/drivers/redis')],
};

let measured: Promise<Map<string, number[]>> | undefined;

/** How long each process takes from start to end, in milliseconds. The processes take turns, so that a busy moment affects all of them. */
async function startTimes(rounds: number): Promise<Map<string, number[]>> {
  const samples = new Map(Object.keys(processes).map((name): [string, number[]] => [name, []]));
  // In the first round, files are not in the cache of the operating system yet, so it does not count.
  for (let round = 0; round <= rounds; round++) {
    for (const [name, [, args]] of Object.entries(processes)) {
      const startedAt = performance.now();
      await run(process.execPath, args, { cwd: import.meta.dirname });
      if (round > 0) samples.get(name)!.push(performance.now() - startedAt);
    }
  }
  return samples;
}

export const starts: Group = {
  title: 'Start',
  about:
    'How long a process takes that only imports a module, from its start to its end, in 101 rounds; then the median difference from Node alone in the same round. The first ' +
    'operation loads the rest: the client, files, and devalue, which Astro has loaded already. Beside ours: devalue, the client, and a driver of unstorage.',
  columns: ['median and quartiles', 'more than Node'],
  rows: Object.entries(processes).map(([name, [what, , reachMs]]) => ({
    name,
    what,
    reach: reachMs ? `${reachMs} ms` : '',
    async run(quick) {
      const samples = await (measured ??= startTimes(quick ? 3 : 101));
      const alone = samples.get('start-node')!;
      const more = median(samples.get(name)!.map((ms, round) => ms - alone[round]!));
      return {
        cells: [spread(samples.get(name)!, 'ms'), `${more.toFixed(1)} ms`],
        ...(reachMs && { ours: `${more.toFixed(1)} ms`, reached: more <= reachMs }),
      };
    },
  })),
};
