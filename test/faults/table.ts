// `pnpm faults`: breaks backends in every way that is listed here, writes docs/failure-modes.md, and fails when a promise was broken.
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { netlifyBlobsFaults } from './netlify-blobs.ts';
import { redisFaults } from './redis.ts';
import { replicationFaults } from './replication.ts';
import { TIMEOUT_MS, type Fault, type Scene } from './scene.ts';
import { upstashFaults } from './upstash.ts';
import { createVisits, type Kind, type Verdict, type Visit, type Visits } from './visits.ts';

const SLACK_MS = 500;
/** How long a backend that is there again may go unnoticed. */
const WELL_WITHIN_MS = 2000;
/** With this many visitors at once a fault that passes is lived through. */
const CROWD = 6;
/** An answer that takes longer was held up. */
const HELD_UP_MS = 100;
const workspace = fileURLToPath(new URL('../../', import.meta.url));
const page = join(workspace, 'docs/failure-modes.md');

interface Line {
  cells: string[];
  note?: string | undefined;
  problems: string[];
}

interface Course {
  met: Visit[];
  next: Visit[];
  wellAfterMs: number;
  /** When the fault began. */
  struckAt: number;
}

async function observe(fault: Fault): Promise<Line> {
  const scene = await fault.open();
  try {
    const visits = await createVisits(scene.driver);
    const kinds = fault.kinds ?? ['read', 'write'];
    const { met, next, wellAfterMs, struckAt } = await (fault.passes ? liveThrough : endure)(scene, visits, kinds);
    const { error } = await visits.visit('sign-out');
    const verdict = await visits.verify().catch((reason: Error): Verdict => {
      return { acknowledged: 0, lost: [], problems: [`it did not recover: ${reason.message}`] };
    });
    const problems = [...verdict.problems, ...(error ? [`a sign-out fails: ${error.message}`] : [])];
    const late = visits.all.filter(({ ms }) => ms > TIMEOUT_MS + SLACK_MS);
    if (late.length > 0) problems.push(`${late.length} requests took longer than the deadline plus half a second`);
    const missing = verdict.lost.filter((at) => !fault.mayLose || at > struckAt);
    if (missing.length > 0) problems.push(`${missing.length} acknowledged writes are missing`);
    if (wellAfterMs > WELL_WITHIN_MS && !fault.passes) problems.push('it did not recover in time');
    const well = fault.passes && wellAfterMs === 0 ? 'no disruption' : time(wellAfterMs);
    const others = fault.passes ? countOf(next) : seenNext(met, next, kinds);
    const cells = [fault.name, seenBy(met, kinds), time(longest(met)), others, well];
    return { cells, problems, note: await scene.note?.(verdict) };
  } finally {
    await scene.close();
  }
}

/** The fault stays until it is mended. */
async function endure(scene: Scene, visits: Visits, kinds: Kind[]): Promise<Course> {
  const visitAll = (): Promise<Visit[]> => Promise.all(kinds.map((kind) => visits.visit(kind)));
  const struckAt = performance.now();
  await scene.strike(await visits.keys());
  // What happens to those who are under way at this very moment is chance, and seen where faults pass.
  await pause(20);
  const met = await visitAll();
  const next: Visit[] = [];
  for (let round = 0; round < 4; round++) next.push(...(await visitAll()));
  await scene.mend!();
  const mendedAt = performance.now();
  let last = await visitAll();
  while (last.some(({ error }) => error)) {
    if (performance.now() - mendedAt > 10_000) break;
    await pause(10);
    last = await visitAll();
  }
  return { met, next, wellAfterMs: performance.now() - mendedAt, struckAt };
}

/** The fault goes by itself, and visitors come all the time. */
async function liveThrough(scene: Scene, visits: Visits, kinds: Kind[]): Promise<Course> {
  let open = true;
  const crowd = Array.from({ length: CROWD }, async (_, index) => {
    while (open) {
      await visits.visit(kinds[index % kinds.length]!);
      await pause(2);
    }
  });
  await pause(300);
  const struckAt = performance.now();
  await scene.strike(await visits.keys());
  const causedAt = performance.now();
  // Until nobody has been harmed for as long as anybody waits.
  let isCalm = false;
  while (!isCalm && performance.now() < causedAt + 20_000) {
    await pause(100);
    const recently = performance.now() - TIMEOUT_MS - SLACK_MS;
    const isHarmed = visits.all.some(({ error, at, ms }) => (error || ms > HELD_UP_MS) && at + ms > recently);
    isCalm = recently > causedAt && !isHarmed;
  }
  open = false;
  await Promise.all(crowd);
  const during = visits.all.filter(({ at, ms }) => at + ms >= struckAt);
  const hit = during.filter(({ error, ms }) => error || ms > HELD_UP_MS);
  const firstAt = Math.min(...hit.map(({ at }) => at));
  const met = hit.length > 0 ? hit.filter(({ at }) => at < firstAt + HELD_UP_MS) : during;
  const next = during.filter((visit) => !met.includes(visit) || hit.length === 0);
  const wellAt = Math.max(struckAt, ...hit.map(({ at, ms }) => at + ms));
  return { met, next, wellAfterMs: wellAt - struckAt, struckAt };
}

const longest = (visits: Visit[]): number => Math.max(...visits.map(({ ms }) => ms));

/** What visitors saw, the same only once, and who saw it where not everybody did. */
function seenBy(visits: Visit[], kinds: Kind[], isKnown = false): string {
  const kindsBySight = new Map<string, Set<Kind>>();
  for (const { kind, error } of visits) {
    const sight = error ? `\`${error.code}\`${isKnown ? '' : `: “${firstSentence(error)}”`}` : 'success';
    kindsBySight.set(sight, (kindsBySight.get(sight) ?? new Set()).add(kind));
  }
  const everybody = (those: Set<Kind>): boolean => those.size === kinds.length && kindsBySight.size === 1;
  const parts = [...kindsBySight].map(([sight, those]) =>
    everybody(those) ? sight : `${[...those].sort().join(' and ')}: ${sight}`,
  );
  return parts.join('; ');
}

/** Of many visits. */
function countOf(visits: Visit[]): string {
  const counts = new Map<string, number>();
  for (const { error } of visits) {
    const sight = error ? `\`${error.code}\`` : 'success';
    counts.set(sight, (counts.get(sight) ?? 0) + 1);
  }
  const parts = [...counts].map(([sight, count]) => `${count.toLocaleString('en')} × ${sight}`);
  return `${parts.join(', ')}, within ${time(longest(visits))}`;
}

function seenNext(met: Visit[], next: Visit[], kinds: Kind[]): string {
  const known = new Set(met.map(({ error }) => error?.message));
  const isKnown = next.every(({ error }) => !error || known.has(error.message));
  return `${seenBy(next, kinds, isKnown)}, within ${time(longest(next))}`;
}

function firstSentence({ message }: Error): string {
  return /^\[[\w-]+\] (.*?)\.(?:\s|$)/.exec(message)![1]!;
}

function time(ms: number): string {
  return ms < 100 ? `${Math.max(1, Math.round(ms))} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function pageOf(lines: Line[]): string {
  const header = ['fault', 'first requests', 'slowest of them', 'later requests', 'recovery time'];
  const rows = [header, header.map(() => '---'), ...lines.map(({ cells }) => cells)];
  const table = rows.map((cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`);
  const notes = [
    '¹ Simulated: `dns.lookup` never calls back for that name. Everything else is real.',
    ...lines.flatMap(({ note }) => note ?? []),
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

// Words of a fault's name, to look at some only; then nothing is written.
const wanted = process.argv.slice(2);
const faults = [...redisFaults, ...replicationFaults, ...upstashFaults, ...netlifyBlobsFaults].filter(
  ({ name }) => wanted.length === 0 || wanted.some((word) => name.includes(word)),
);

const startedAt = performance.now();
const lines: Line[] = [];
for (const fault of faults) {
  const line = await observe(fault);
  lines.push(line);
  console.log(line.cells.join(' | '));
  if (line.note) console.log(line.note);
  for (const problem of line.problems) console.log(`    BROKEN PROMISE: ${problem}`);
}
if (wanted.length === 0) {
  await writeFile(page, pageOf(lines));
  await promisify(execFile)(join(workspace, 'node_modules/.bin/oxfmt'), [page]);
}
const broken = lines.flatMap(({ problems }) => problems).length;
console.log(
  `\n${lines.length} faults in ${Math.round((performance.now() - startedAt) / 1000)} s, ${broken} broken promises`,
);
process.exit(broken > 0 ? 1 : 0);
