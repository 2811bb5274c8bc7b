/** A point in a program at which a request stops until the test lets it go on. Opened once, it stays open. */
interface Gate {
  arrived: number;
  open: boolean;
  changed: Set<() => void>;
}

const patienceMs = 30_000;

// On globalThis, because the dev server may load this module more than once.
const gates: Map<string, Gate> = ((globalThis as { gates?: Map<string, Gate> }).gates ??= new Map());

function gate(name: string): Gate {
  let found = gates.get(name);
  if (!found) gates.set(name, (found = { arrived: 0, open: false, changed: new Set() }));
  return found;
}

async function until(name: string, reached: (gate: Gate) => boolean): Promise<void> {
  const it = gate(name);
  if (reached(it)) return;
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => {
      it.changed.delete(look);
      reject(
        new Error(
          `gate ${name}: ${it.arrived} arrived, ${it.open ? 'open' : 'closed'}, nothing more in ${patienceMs} ms`,
        ),
      );
    }, patienceMs);
    const look = () => {
      if (!reached(it)) return;
      clearTimeout(timer);
      it.changed.delete(look);
      resolve();
    };
    it.changed.add(look);
  });
}

function change(name: string, apply: (gate: Gate) => void): void {
  const it = gate(name);
  apply(it);
  for (const look of it.changed) look();
}

export function openGate(name: string): void {
  change(name, (it) => (it.open = true));
}

export async function passGate(name: string): Promise<void> {
  change(name, (it) => (it.arrived += 1));
  await until(name, (it) => it.open);
}

export async function arrivalsAt(name: string, count: number): Promise<void> {
  await until(name, (it) => it.arrived >= count);
}
