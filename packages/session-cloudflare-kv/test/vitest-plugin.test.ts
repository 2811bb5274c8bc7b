import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { expect, it, onTestFinished } from 'vitest';

const vitest = join(dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs');
const config = fileURLToPath(new URL('vitest-plugin/vitest.config.ts', import.meta.url));

// Starts a separate Vitest, because its tests run in workerd, and the tests of the workspace do not.
it("passes the conformance suite inside of the tests of a user's Worker", { timeout: 180_000 }, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'vitest-plugin-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const outputFile = join(folder, 'report.json');
  const { PATH = '', HOME = '', TMPDIR = '/tmp' } = process.env;
  const child = spawn(
    process.execPath,
    [vitest, 'run', '--config', config, '--reporter', 'json', '--outputFile', outputFile],
    {
      env: { PATH, HOME, TMPDIR, CI: 'true', WRANGLER_SEND_METRICS: 'false', CLOUDFLARE_CF_FETCH_ENABLED: 'false' },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 170_000,
    },
  );
  const [output, errors] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
  const report: Report = JSON.parse(await readFile(outputFile, 'utf8').catch(() => fail(output + errors)));
  const results = report.testResults.flatMap((file) => file.assertionResults);
  expect(results.filter((result) => result.status !== 'passed')).toEqual([]);
  expect(report.numTotalTests).toBeGreaterThan(30);
});

interface Report {
  numTotalTests: number;
  testResults: { assertionResults: { fullName: string; status: string; failureMessages: string[] }[] }[];
}

function fail(why: string): never {
  throw new Error(why);
}
