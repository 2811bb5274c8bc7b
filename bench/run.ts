import { execFileSync } from 'node:child_process';
import { availableParallelism, cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { redisServerBin } from '@coatcheck/test-support/redis-server';
import { astroDriver } from './astro-driver.ts';
import { astroParts } from './astro-parts.ts';
import { calls } from './calls.ts';
import { overHttp } from './http.ts';
import { inMemory } from './in-memory.ts';
import { onRedis } from './redis.ts';
import { onSql } from './sql.ts';
import { layouts } from './layouts.ts';
import { memory } from './memory.ts';
import { growth } from './growth.ts';
import { encryption, observability } from './encryption.ts';
import { sizes, starts } from './weight.ts';
import { printGroup } from './report.ts';

const { values } = parseArgs({ options: { quick: { type: 'boolean', default: false }, row: { type: 'string' } } });

const groups = [
  calls,
  inMemory,
  astroDriver,
  astroParts,
  growth,
  encryption,
  observability,
  onRedis,
  overHttp,
  onSql,
  memory,
  layouts,
  sizes,
  starts,
]
  .map((group) => ({
    ...group,
    rows: group.rows.filter(({ name }) =>
      [undefined, name, group.title.toLowerCase()].includes(values.row?.toLowerCase()),
    ),
  }))
  .filter(({ rows }) => rows.length > 0);
if (groups.length === 0)
  throw new Error(`There is no row \`${values.row}\`. Without --row all are printed, with their names.`);

console.log(`# What sessions cost\n\n${await machine()}`);
const behind: string[] = [];
const broken: string[] = [];
for (const group of groups) {
  const printed = await printGroup(group, values.quick);
  behind.push(...printed.behind);
  broken.push(...printed.broken);
}

console.log(`\n${behind.length === 0 ? 'Nothing is behind.' : `Behind: ${behind.join(', ')}.`}`);
if (broken.length > 0) console.log(`Not met, and binding: ${broken.join(', ')}.`);
process.exit(broken.length > 0 ? 1 : 0);

async function machine(): Promise<string> {
  const { bin, env } = await redisServerBin();
  const redis = execFileSync(bin, ['--version'], { encoding: 'utf8', env: { ...process.env, ...env } });
  return [
    `${cpus()[0]?.model.trim()}, ${availableParallelism()} cores`,
    `Node ${process.versions.node}`,
    `Redis ${/v=([\d.]+)/.exec(redis)?.[1]} on the same machine`,
  ].join('; ');
}
