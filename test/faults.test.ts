import { expect, test } from 'vitest';
import { runLoad } from './faults/load.ts';

// A few seconds of `pnpm faults:load`, whose report says more. Single outages in real sites are in outages.test.ts.

test('what the shop acknowledges while Redis fails in every way is there afterwards', async () => {
  const seed = Date.now() % 2 ** 31;
  // Whether answers come in time is for the command to say: here the machine may be busy with other tests.
  const report = await runLoad({ connections: 50, seconds: 5, timeoutMs: 500, slackMs: Infinity, seed });
  expect({ seed, violations: report.violations }).toEqual({ seed, violations: [] });
  expect(report.writes).toBeGreaterThan(0);
  expect(report.failed).toBeGreaterThan(0);
});
