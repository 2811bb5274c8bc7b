// `pnpm faults`: injects each fault into a real backend, writes docs/failure-modes.md, and fails if a guarantee of that page did not hold.
// Arguments select faults by words in their names. Then the page is not written.
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { cloudflareFaults, cloudflareNote } from './cloudflare.ts';
import { libsqlFaults } from './libsql.ts';
import { netlifyBlobsFaults } from './netlify-blobs.ts';
import { postgresFaults } from './postgres.ts';
import { redisFaults } from './redis.ts';
import { replicationFaults } from './replication.ts';
import { TIMEOUT_MS, type Fault, type Scene } from './scene.ts';
import { sqliteFaults } from './sqlite.ts';
import { upstashFaults } from './upstash.ts';
import { siteOn } from './visited-site.ts';
import { createVisits, type Kind, type Verdict, type Visit, type Visits } from './visits.ts';

/** How much longer than the timeout a request may take, in milliseconds. */
const SLACK_MS = 500;
/** How long the recovery from a fault may take, in milliseconds. Not checked for a fault that ends by itself. */
const MAX_RECOVERY_MS = 2000;
/** How many visitors send requests concurrently during a fault that ends by itself. */
const CONCURRENT_VISITORS = 6;
/** A request that takes longer was delayed by the fault, in milliseconds. */
const SLOW_MS = 100;
const workspace = fileURLToPath(new URL('../../', import.meta.url));
const page = join(workspace, 'docs/failure-modes.md');

/** A row of the table, and its footnote. */
interface Row {
  cells: string[];
  note?: string | undefined;
  /** Descriptions of the guarantees that did not hold. */
  problems: string[];
}

/** How requests were answered during a fault. */
interface Observation {
  /** The first requests that met the fault. */
  first: Visit[];
  /** The requests after them. */
  later: Visit[];
  /** How long the recovery took, in milliseconds. */
  recoveryMs: number;
  /** When the fault started, by `performance.now()`. */
  faultAt: number;
}

/** Injects a fault, observes it, and checks the guarantees. */
async function observeFault(fault: Fault): Promise<Row> {
  const scene = await fault.open();
  try {
    const visits = await createVisits('site' in scene ? scene.site : siteOn(scene.driver));
    const kinds = fault.kinds ?? ['read', 'write'];
    const { first, later, recoveryMs, faultAt } = await (fault.endsByItself ? observePassing : observeLasting)(
      scene,
      visits,
      kinds,
    );
    const { error } = await visits.visit('sign-out');
    const verdict = await visits.verify().catch((reason: Error): Verdict => {
      return { acknowledged: 0, lost: [], problems: [`it did not recover: ${reason.message}`] };
    });
    const problems = [...verdict.problems, ...(error ? [`a sign-out fails: ${error.message}`] : [])];
    const late = visits.all.filter(({ ms }) => ms > TIMEOUT_MS + SLACK_MS);
    if (late.length > 0) problems.push(`${late.length} requests took longer than the deadline plus half a second`);
    const missing = verdict.lost.filter((at) => !fault.mayLose || at > faultAt);
    if (missing.length > 0) problems.push(`${missing.length} acknowledged writes are missing`);
    if (recoveryMs > MAX_RECOVERY_MS && !fault.endsByItself) problems.push('it did not recover in time');
    const recovery = fault.endsByItself && recoveryMs === 0 ? 'no disruption' : formatTime(recoveryMs);
    const others = fault.endsByItself ? countResults(later) : describeLaterResults(first, later, kinds);
    const cells = [fault.name, describeResults(first, kinds), formatTime(slowestMs(first)), others, recovery];
    return { cells, problems, note: await scene.note?.(verdict) };
  } finally {
    await scene.close();
  }
}

/** Observes a fault that lasts until it is repaired. */
async function observeLasting(scene: Scene, visits: Visits, kinds: Kind[]): Promise<Observation> {
  const visitAll = (): Promise<Visit[]> => Promise.all(kinds.map((kind) => visits.visit(kind)));
  const faultAt = performance.now();
  await scene.inject(await visits.keys());
  // Requests at the very start of the fault have random results. `observePassing` observes these as well.
  await pause(20);
  const first = await visitAll();
  const later: Visit[] = [];
  for (let round = 0; round < 4; round++) later.push(...(await visitAll()));
  await scene.repair!();
  const repairedAt = performance.now();
  let last = await visitAll();
  while (last.some(({ error }) => error)) {
    if (performance.now() - repairedAt > 10_000) break;
    await pause(10);
    last = await visitAll();
  }
  return { first, later, recoveryMs: performance.now() - repairedAt, faultAt };
}

/** Observes a fault that ends by itself. Visitors send requests all the time. */
async function observePassing(scene: Scene, visits: Visits, kinds: Kind[]): Promise<Observation> {
  let isOpen = true;
  const visitors = Array.from({ length: CONCURRENT_VISITORS }, async (_, index) => {
    while (isOpen) {
      await visits.visit(kinds[index % kinds.length]!);
      await pause(2);
    }
  });
  await pause(300);
  const faultAt = performance.now();
  await scene.inject(await visits.keys());
  const causedAt = performance.now();
  // Continue until no request has failed or been slow for as long as any request may take.
  let hasRecovered = false;
  while (!hasRecovered && performance.now() < causedAt + 20_000) {
    await pause(100);
    const recently = performance.now() - TIMEOUT_MS - SLACK_MS;
    const isAffected = visits.all.some(({ error, at, ms }) => (error || ms > SLOW_MS) && at + ms > recently);
    hasRecovered = recently > causedAt && !isAffected;
  }
  isOpen = false;
  await Promise.all(visitors);
  const during = visits.all.filter(({ at, ms }) => at + ms >= faultAt);
  const affected = during.filter(({ error, ms }) => error || ms > SLOW_MS);
  const firstAt = Math.min(...affected.map(({ at }) => at));
  const first = affected.length > 0 ? affected.filter(({ at }) => at < firstAt + SLOW_MS) : during;
  const later = during.filter((visit) => !first.includes(visit) || affected.length === 0);
  const recoveredAt = Math.max(faultAt, ...affected.map(({ at, ms }) => at + ms));
  return { first, later, recoveryMs: recoveredAt - faultAt, faultAt };
}

/** How long the slowest of some requests took, in milliseconds. */
const slowestMs = (visits: Visit[]): number => Math.max(...visits.map(({ ms }) => ms));

/**
 * Describes the results of requests, each different result once. Names the kinds of request with a result if the results differ, or if not
 * all kinds have been sent.
 *
 * @param isKnown whether the table has already shown the error messages. Then only the codes are shown.
 */
function describeResults(visits: Visit[], kinds: Kind[], isKnown = false): string {
  const kindsByResult = new Map<string, Set<Kind>>();
  for (const { kind, error } of visits) {
    const result = error ? `\`${error.code}\`${isKnown ? '' : `: “${firstSentence(error)}”`}` : 'success';
    kindsByResult.set(result, (kindsByResult.get(result) ?? new Set()).add(kind));
  }
  const isSameForAll = (those: Set<Kind>): boolean => those.size === kinds.length && kindsByResult.size === 1;
  const parts = [...kindsByResult].map(([result, those]) =>
    isSameForAll(those) ? result : `${[...those].sort().join(' and ')}: ${result}`,
  );
  return parts.join('; ');
}

/** Counts the results of many requests. */
function countResults(visits: Visit[]): string {
  const counts = new Map<string, number>();
  for (const { error } of visits) {
    const result = error ? `\`${error.code}\`` : 'success';
    counts.set(result, (counts.get(result) ?? 0) + 1);
  }
  const parts = [...counts].map(([result, count]) => `${count.toLocaleString('en')} × ${result}`);
  return `${parts.join(', ')}, within ${formatTime(slowestMs(visits))}`;
}

/** Describes results without the error messages that the first requests had as well. */
function describeLaterResults(first: Visit[], later: Visit[], kinds: Kind[]): string {
  const known = new Set(first.map(({ error }) => error?.message));
  const isKnown = later.every(({ error }) => !error || known.has(error.message));
  return `${describeResults(later, kinds, isKnown)}, within ${formatTime(slowestMs(later))}`;
}

function firstSentence({ message }: Error): string {
  return /^\[[\w-]+\] (.*?)\.(?:\s|$)/.exec(message)![1]!;
}

function formatTime(ms: number): string {
  return ms < 100 ? `${Math.max(1, Math.round(ms))} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** Renders the Markdown page with the table. */
function renderPage(rows: Row[]): string {
  const header = ['fault', 'first requests', 'slowest of them', 'later requests', 'recovery time'];
  const lines = [header, header.map(() => '---'), ...rows.map(({ cells }) => cells)];
  const table = lines.map((cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`);
  const notes = [
    '¹ Simulated: `dns.lookup` never calls back for that name. Everything else is real.',
    ...rows.flatMap(({ note }) => note ?? []),
    cloudflareNote,
  ];
  return `# Failure modes

This page is generated by \`npx --yes pnpm@12.21.0 faults\`. The command breaks a real backend in each of the ways below. Meanwhile, simulated users
read and write through a \`Session\` with a \`timeout\` of ${TIMEOUT_MS.toLocaleString('en')} ms (the default is 5,000). The times are from one run on one machine. On any machine,
the command fails if:

- a request ends more than half a second after its deadline
- a failed read is treated as a missing session
- an acknowledged write is missing afterward, unless it came before a failover to a replica ²
- a write was stored although its error says that nothing was

${table.join('\n')}

Each request is one operation: a read, a write of one key, or a sign-out. The recovery time is measured from the time at which the backend is
available again. For a fault that ends by itself, it is measured from the start of the fault. The error codes are explained in [\`session-core\`](../packages/session-core/README.md#errors).

KV is not in the table. Instead, the tests of its package run in workerd with a binding that fails, hangs, or loses its answer after it has stored a
change.

${notes.join('\n\n')}

## Under load

\`npx --yes pnpm@12.21.0 faults:load\` sends requests to the shop in \`examples/shop\` over 200 HTTP connections for a minute. Meanwhile, the network
path to Redis is reset, cut, delayed, blackholed, refused or slowed to single bytes, and Redis is killed or frozen, again and again. Each simulated
user records what each response promised. Afterward, the command checks that:

- everything that was promised is stored
- no user who signed out is still signed in
- no request took longer than the \`timeout\` of all its operations together plus half a second
- memory and connections are back to their initial level

Every day, CI runs a short version that takes a few seconds (\`test/faults.test.ts\`).

The command counts two effects of Astro's own session code separately. With a \`Session\`, neither of them occurs:

- If destroying a session fails, Astro still answers the sign-out with success. It only logs the error.
- At sign-in, Astro removes the old session before it stores the new one. If Redis fails in between, the cart is lost.
`;
}

const wanted = process.argv.slice(2);
const faults = [
  ...redisFaults,
  ...replicationFaults,
  ...postgresFaults,
  ...libsqlFaults,
  ...upstashFaults,
  ...netlifyBlobsFaults,
  ...cloudflareFaults,
  ...sqliteFaults,
].filter(({ name }) => wanted.length === 0 || wanted.some((word) => name.includes(word)));

const startedAt = performance.now();
const rows: Row[] = [];
for (const fault of faults) {
  const row = await observeFault(fault);
  rows.push(row);
  console.log(row.cells.join(' | '));
  if (row.note) console.log(row.note);
  for (const problem of row.problems) console.log(`    BROKEN PROMISE: ${problem}`);
}
if (wanted.length === 0) {
  await writeFile(page, renderPage(rows));
  await promisify(execFile)(join(workspace, 'node_modules/.bin/oxfmt'), [page]);
}
const broken = rows.flatMap(({ problems }) => problems).length;
console.log(
  `\n${rows.length} faults in ${Math.round((performance.now() - startedAt) / 1000)} s, ${broken} broken promises`,
);
process.exit(broken > 0 ? 1 : 0);
