/** An environment variable that a driver needs. */
export interface Variable {
  name: string;
  /** A value, for the line to write. */
  example: string;
}

type Config = Readonly<Record<string, unknown>>;

/** What a driver reads if its options do not say where the backend is. The first of the alternatives is the one to write. */
interface Needs {
  /** The options that replace the variables. */
  options: readonly string[];
  alternatives: readonly [Variable, ...Variable[]];
}

const NEEDS: Readonly<Record<string, readonly Needs[]>> = {
  'session-redis': [
    {
      options: ['url', 'host', 'port', 'cluster', 'sentinel'],
      alternatives: [{ name: 'REDIS_URL', example: 'redis://localhost:6379' }],
    },
  ],
  'session-postgres': [
    {
      options: ['url'],
      alternatives: [
        { name: 'DATABASE_URL', example: 'postgres://user:password@localhost:5432/database' },
        ...['PGHOST', 'PGPORT', 'PGUSER', 'PGPASSWORD', 'PGDATABASE'].map((name) => ({ name, example: '' })),
      ],
    },
  ],
  'session-libsql': [
    {
      options: ['url'],
      alternatives: [
        { name: 'LIBSQL_URL', example: 'libsql://name.turso.io' },
        { name: 'TURSO_DATABASE_URL', example: '' },
      ],
    },
  ],
  'session-upstash': [
    {
      options: ['url'],
      alternatives: [
        { name: 'UPSTASH_REDIS_REST_URL', example: 'https://name.upstash.io' },
        { name: 'KV_REST_API_URL', example: '' },
      ],
    },
    {
      options: ['token'],
      alternatives: [
        { name: 'UPSTASH_REDIS_REST_TOKEN', example: 'token' },
        { name: 'KV_REST_API_TOKEN', example: '' },
      ],
    },
  ],
};

/**
 * The environment variables that a driver needs and does not find: those of `fromEnv` in its options, and those that it reads by itself.
 *
 * @param has whether a variable is set.
 */
export function missingVariables(driver: string, config: Config, has: (name: string) => boolean): Variable[] {
  const own = (NEEDS[driver] ?? [])
    .filter(({ options }) => options.every((option) => config[option] === undefined))
    .flatMap(({ alternatives }) => (alternatives.some(({ name }) => has(name)) ? [] : [alternatives[0]]));
  const named = [...new Set(namesIn(config))].filter((name) => !has(name)).map((name) => ({ name, example: '...' }));
  return [...own, ...named];
}

/** The names of all variables that some options take from the environment with `fromEnv`. */
function namesIn(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return [];
  const { fromEnv, ...others } = value as { fromEnv?: unknown };
  return [...(typeof fromEnv === 'string' ? [fromEnv] : []), ...Object.values(others).flatMap(namesIn)];
}
