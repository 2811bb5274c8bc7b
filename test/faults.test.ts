import { expect, test } from 'vitest';
import { runLoad } from './faults/load.ts';

// Runs `pnpm faults:load` for a few seconds; its report says more. Single outages in real sites are in outages.test.ts.

test('everything that the shop acknowledges during faults of Redis is stored afterwards', async () => {
  const seed = Date.now() % 2 ** 31;
  // Only the command checks that responses are in time: here, the machine may be busy with other tests.
  const report = await runLoad({ connections: 50, seconds: 5, timeoutMs: 500, slackMs: Infinity, seed });
  expect({ seed, violations: report.violations }).toEqual({ seed, violations: [] });
  expect(report.writes).toBeGreaterThan(0);
  expect(report.failed).toBeGreaterThan(0);
});
