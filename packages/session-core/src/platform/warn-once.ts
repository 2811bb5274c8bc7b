const warned = new Set<string>();

/** Says something to the operator, once in a process for each driver. */
export function warnOnce(driver: string, message: string): void {
  const line = `[${driver}] ${message}`;
  if (warned.has(line)) return;
  warned.add(line);
  console.warn(line);
}
