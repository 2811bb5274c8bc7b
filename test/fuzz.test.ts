import { expect, test } from 'vitest';
import { fuzz } from './fuzz/target.ts';
import { commandFor, newSeed, targets } from './fuzz/targets.ts';

// Runs `pnpm fuzz` with fewer cases.
test.each(targets)('no input of $name does harm', async (target) => {
  const seed = newSeed();
  const finding = await fuzz(target, { seed, cases: target.casesInTests });
  expect.soft(finding?.text).toBeUndefined();
  expect(finding && commandFor(target, seed, finding.path)).toBeUndefined();
});
