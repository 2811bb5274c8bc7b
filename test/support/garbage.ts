import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc') as () => void;

/** Collects all unreachable objects. */
export async function collectGarbage(): Promise<void> {
  for (let round = 0; round < 3; round++) {
    // Objects of a promise that has just settled can be collected only in a later turn.
    await new Promise(setImmediate);
    gc();
  }
}

/** The size of all live objects, in bytes. */
export async function liveBytes(): Promise<number> {
  await collectGarbage();
  return process.memoryUsage().heapUsed;
}
