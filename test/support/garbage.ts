import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc') as () => void;

/** Collects everything that nobody holds any more. */
export async function collectGarbage(): Promise<void> {
  for (let round = 0; round < 3; round++) {
    // What a promise that has just settled held is free only after its turn.
    await new Promise(setImmediate);
    gc();
  }
}

/** The bytes that live objects take. */
export async function liveBytes(): Promise<number> {
  await collectGarbage();
  return process.memoryUsage().heapUsed;
}
