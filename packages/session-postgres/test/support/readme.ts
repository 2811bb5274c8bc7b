import { readFileSync } from 'node:fs';

const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');

/** The SQL with which the README lists the privileges of the user `sessions_user`. */
export const README_PRIVILEGES: string = /```sql\n(GRANT[^`]+)```/.exec(readme)?.[1] ?? '';
