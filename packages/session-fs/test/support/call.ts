// The timeout is long because all tests share one disk, which may be busy.
export const call = (ms = 30_000): { signal: AbortSignal } => ({ signal: AbortSignal.timeout(ms) });
