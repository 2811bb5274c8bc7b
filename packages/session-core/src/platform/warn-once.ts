const warned = new Set<string>();

/** Logs a warning with `console.warn`, once per process for the same driver and message. */
export function warnOnce(driver: string, message: string): void {
  const line = `[${driver}] ${message}`;
  if (warned.has(line)) return;
  warned.add(line);
  console.warn(line);
}
