import { readFileSync } from 'node:fs';

const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');

/** The line with which the README confines a user of Redis. */
export const README_ACL: string = /^ACL SETUSER .+$/m.exec(readme)![0];
