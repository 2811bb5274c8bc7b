/** Where a site runs, as far as it matters for sessions. */
export type Host = 'vercel' | 'netlify' | 'cloudflare' | 'node' | 'unknown';

/** Why a driver does not suit a host. */
export interface Unsuited {
  why: string;
  /** Whether it cannot work there at all. */
  isError?: boolean;
  /** Whether it works in `astro dev`, which runs on one machine. */
  onlyBuilt?: boolean;
  /** The packages to suggest before those that suit the host. */
  instead?: readonly string[];
  /** The lines with which it works. Undefined: another package is suggested. */
  lines?: string;
}

const ADAPTERS: Readonly<Record<string, Host>> = {
  '@astrojs/vercel': 'vercel',
  '@astrojs/netlify': 'netlify',
  '@astrojs/cloudflare': 'cloudflare',
  '@astrojs/node': 'node',
};

/** The host of an adapter. Undefined means that the site has no adapter. */
export function hostOf(adapter: string | undefined): Host {
  return ADAPTERS[adapter ?? ''] ?? 'unknown';
}

/** The packages that suit a host, the best first. */
function packagesFor(host: Host): readonly string[] {
  if (host === 'vercel') return ['session-postgres', 'session-upstash'];
  if (host === 'netlify') return ['session-netlify-blobs'];
  if (host === 'cloudflare') return ['session-d1', 'session-durable-objects'];
  return ['session-sqlite', 'session-redis'];
}

/**
 * The packages to suggest for a host, the best first: the installed ones, then others, then those that suit every site on the host. None
 * that does not suit it.
 */
export function suggestions(host: Host, others: readonly string[], installed: readonly string[] = []): string[] {
  const names = new Set([...installed, ...others, ...packagesFor(host)]);
  return [...names].filter((name) => !unsuited(host, name, {}));
}

/** The packages with the backend of one of Astro's own drivers, such as `unstorage/drivers/lru-cache` or `lruCache`. */
export function sameBackend(driver: string): readonly string[] {
  const name = driver.replace('unstorage/drivers/', '').replaceAll('-', '').toLowerCase();
  return SAME_BACKEND[name] ?? [];
}

// The Node adapter chooses files. SQLite is on the same disk, and suits more sites.
const FILES = ['session-sqlite', 'session-fs'];

const SAME_BACKEND: Readonly<Record<string, readonly string[]>> = {
  fs: FILES,
  fslite: FILES,
  memory: ['session-memory'],
  lrucache: ['session-memory'],
  netlifyblobs: ['session-netlify-blobs'],
  redis: ['session-redis'],
  upstash: ['session-upstash'],
  vercelkv: ['session-upstash'],
};

/** What to write for the first of some packages, and the names of the others if it has to be installed. */
export function linesFor([name = '', ...others]: readonly string[], installed: readonly string[] = []): string {
  if (installed.includes(name)) return `${name} is installed. Set ${driverLines(name)}`;
  const or = others.length > 0 ? ` (or ${others.join(', ')})` : '';
  return `Install @coatcheck/${name}${or}, and set ${driverLines(name)}`;
}

/** The lines that configure a package. */
function driverLines(name: string, options = '', ...imports: readonly string[]): string {
  const words = name.replace('session-', '').split('-');
  const driver = `${words.map((word, index) => (index > 0 ? word[0]!.toUpperCase() + word.slice(1) : word)).join('')}Driver`;
  return [
    '`session.driver` in astro.config:\n',
    `  import { ${[...imports, driver].join(', ')} } from '@coatcheck/${name}';`,
    `  session: { driver: ${driver}(${options}) },`,
  ].join('\n');
}

/**
 * Why a Coatcheck driver does not suit a host. Undefined if it does, or if the host is unknown.
 *
 * @param config the options of the driver.
 */
export function unsuited(host: Host, driver: string, config: Readonly<Record<string, unknown>>): Unsuited | undefined {
  if (host === 'unknown') return undefined;
  if (driver === 'session-netlify-blobs' && host !== 'netlify' && config['siteID'] === undefined) {
    const options = "{ siteID: fromEnv('NETLIFY_SITE_ID'), token: fromEnv('NETLIFY_AUTH_TOKEN') }";
    const lines = `Set ${driverLines(driver, options, 'fromEnv')}`;
    return { why: 'outside of Netlify, Netlify Blobs needs `siteID` and `token`', isError: true, lines };
  }
  const { url } = config;
  const isFile = driver === 'session-libsql' && typeof url === 'string' && url.startsWith('file:');
  return (host === 'cloudflare' ? ON_WORKERS : host === 'node' ? ON_NODE : ON_FUNCTIONS)[
    isFile ? 'session-sqlite' : driver
  ];
}

const NO_BINDING: Unsuited = { why: 'only a Cloudflare Worker has the binding that it needs', isError: true };
const NO_DISK: Unsuited = { why: 'a Worker has no disk', isError: true };
const LOST_DISK: Unsuited = {
  why: 'each function has a disk of its own, which is read-only or is lost when the function ends',
  onlyBuilt: true,
};
const NEEDS_NODE: Unsuited = { why: 'its client needs Node', instead: ['session-d1', 'session-upstash'] };

const OUTSIDE_WORKERS: Readonly<Record<string, Unsuited>> = {
  'session-cloudflare-kv': NO_BINDING,
  'session-d1': NO_BINDING,
  'session-durable-objects': NO_BINDING,
};

const ON_NODE = OUTSIDE_WORKERS;

const ON_FUNCTIONS: Readonly<Record<string, Unsuited>> = {
  ...OUTSIDE_WORKERS,
  'session-memory': {
    why: 'each function has a memory of its own, so visitors lose their sessions at random',
    onlyBuilt: true,
  },
  'session-fs': LOST_DISK,
  'session-sqlite': LOST_DISK,
};

const ON_WORKERS: Readonly<Record<string, Unsuited>> = {
  'session-memory': {
    why: 'each isolate has a memory of its own, so visitors lose their sessions at random',
    onlyBuilt: true,
  },
  'session-fs': NO_DISK,
  'session-sqlite': NO_DISK,
  'session-redis': NEEDS_NODE,
  'session-postgres': NEEDS_NODE,
  'session-cloudflare-kv': {
    why: 'KV loses updates between requests in different isolates, and other regions see a change up to a minute late',
  },
};
