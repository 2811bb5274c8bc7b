/** libpq's variables, by the option of pg. pg reads others by itself, such as PGSSLMODE. */
export const LIBPQ = {
  host: 'PGHOST',
  port: 'PGPORT',
  user: 'PGUSER',
  password: 'PGPASSWORD',
  database: 'PGDATABASE',
} as const;

/** The environment variables that say where PostgreSQL is. */
export const VARIABLES: string[] = ['DATABASE_URL', ...Object.values(LIBPQ)];
