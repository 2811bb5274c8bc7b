// A disk that many tests share may be busy for longer than a server of a test's own.
export const call = (ms = 30_000): { signal: AbortSignal } => ({ signal: AbortSignal.timeout(ms) });
