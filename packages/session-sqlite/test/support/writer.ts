// A process in which several writers write fields into one session, one field after the other, and print each acknowledged field:
//   node writer.ts <file> <key> <name> <writers> <fields of each writer>
// A writer ends when its session has been destroyed.
import { openStore } from '../../src/store.ts';

const [file = '', key = '', name = '', writers = '', count = ''] = process.argv.slice(2);
const store = await openStore({ file }, { timeoutMs: 60_000 });
console.log('ready');

async function write(writer: number): Promise<void> {
  for (let index = 0; index < Number(count); index++) {
    const field = `${name}-${writer}-${index}`;
    const result = await store.patch(
      key,
      {
        set: new Map([[field, `:"${'x'.repeat(Math.floor(Math.random() * 300))}"`]]),
        unset: [],
        lifetimeMs: 3_600_000,
        defaultTtlMs: 3_600_000,
        now: Date.now(),
      },
      { signal: AbortSignal.timeout(60_000) },
    );
    console.log(`${result} ${field}`);
    if (result === 'destroyed') break;
    // Another process may write now, and a signal that kills this one may arrive.
    await new Promise(setImmediate);
  }
}

await Promise.all(Array.from({ length: Number(writers) }, (_, writer) => write(writer)));
