// A process that writes fields into a session one after the other, and prints each acknowledged field:
//   node writer.ts <directory> <key> <name> <count>
// It ends when its session has been destroyed.
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
