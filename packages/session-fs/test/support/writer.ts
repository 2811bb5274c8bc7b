// A process that writes into a session, field after field, and says what was acknowledged:
//   node writer.ts <directory> <key> <name> <count>
// Ends when its session has been removed.
import { valueStore } from '@coatcheck/session-core/driver';
import { openFiles } from '../../src/files.ts';

const [directory = '', key = '', name = '', count = ''] = process.argv.slice(2);
const store = valueStore(await openFiles(directory, 60_000));
console.log('ready');

for (let index = 0; index < Number(count); index++) {
  const result = await store.patch(
    key,
    {
      set: new Map([[`${name}-${index}`, `:"${'x'.repeat(Math.floor(Math.random() * 300))}"`]]),
      unset: [],
      lifetimeMs: 3_600_000,
      defaultTtlMs: 3_600_000,
      now: Date.now(),
    },
    { signal: AbortSignal.timeout(60_000) },
  );
  console.log(`${result} ${name}-${index}`);
  if (result === 'destroyed') break;
}
