/** The `it` or `test` of any test runner; the suite does not import one. The third argument is the timeout, in milliseconds. */
export type It = (name: string, run: () => Promise<void>, timeoutMs: number) => unknown;

/** Fails unless both values have the same text form. The order of entries in Maps and objects does not matter. */
export function same(actual: unknown, expected: unknown, about = ''): void {
  const [left, right] = [show(actual), show(expected)];
  if (left !== right) fail(`${about && `${about}: `}expected ${shorten(right)}, got ${shorten(left)}`);
}

/** Fails with `message` unless `holds` is true. */
export function isTrue(holds: boolean, message: string): void {
  if (!holds) fail(message);
}

/** Resolves to the error with which `promise` rejects. Fails if it resolves. */
export async function rejects(promise: Promise<unknown>, about = ''): Promise<unknown> {
  let result: unknown;
  try {
    result = await promise;
  } catch (error) {
    return error;
  }
  return fail(`${about && `${about}: `}expected a rejection, got ${shorten(show(result))}`);
}

export function fail(message: string): never {
  throw new Error(message);
}

/** Runs a test. If it fails, adds to the error which rule was broken and what to do. */
export async function explained(rule: string, whatToDo: string, run: () => Promise<void>): Promise<void> {
  try {
    await run();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new Error(`${message}\nRule: ${rule}.\nWhat to do: ${whatToDo}`, { cause: error });
  }
}

function show(value: unknown): string {
  if (value instanceof Map) return `Map ${show(Object.fromEntries(value))}`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'undefined';
  if (Array.isArray(value)) return `[${value.map(show).join(', ')}]`;
  return `{${Object.entries(value)
    .toSorted(([left], [right]) => (left < right ? -1 : 1))
    .map(([name, item]) => `${JSON.stringify(name)}: ${show(item)}`)
    .join(', ')}}`;
}

function shorten(text: string): string {
  return text.length > 500 ? `${text.slice(0, 500)} ... (${text.length} characters)` : text;
}
