// A process in which several writers write fields into one session, and print each acknowledged field:
//   node writer.ts <url> <token> <key> <name> <writers>
import { openStore } from '../../src/store.ts';

const [url = '', authToken = '', key = '', name = '', writers = ''] = process.argv.slice(2);
const store = await openStore({ url, authToken }, { env: () => undefined, timeoutMs: 60_000 });

await Promise.all(
  Array.from({ length: Number(writers) }, async (_, writer) => {
    const field = `${name}-${writer}`;
    const result = await store.patch(
      key,
      {
        set: new Map([[field, ':1']]),
        unset: [],
        lifetimeMs: 3_600_000,
        defaultTtlMs: 3_600_000,
        now: Date.now(),
      },
      { signal: AbortSignal.timeout(60_000) },
    );
    console.log(`${result} ${field}`);
  }),
);
