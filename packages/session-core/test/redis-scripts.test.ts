import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { hashes } from '../src/stores/redis/hashes.ts';
import { scripts } from '../src/stores/redis/scripts.ts';

test('each script has its own hash', () => {
  const actual = Object.entries(scripts).map(([name, source]) => [
    name,
    createHash('sha1').update(source).digest('hex'),
  ]);
  expect(hashes).toEqual(Object.fromEntries(actual));
});
