/** A timestamp by two clocks, because neither of them alone measures elapsed time reliably. */
export interface Moment {
  /** Epoch milliseconds by the system clock, which can be set forward or back. */
  wall: number;
  /** Milliseconds by the process's monotonic clock. Nothing can set it, but it may stop while the process is suspended. */
  monotonic: number;
}

/** The current time by both clocks. */
export function thisMoment(): Moment {
  return { wall: Date.now(), monotonic: performance.now() };
}

/**
 * The milliseconds since a timestamp that was taken in this process. It uses the clock that shows more elapsed time: an old timestamp must
 * not look recent because the system clock was set back or the monotonic clock stopped.
 */
export function msSince({ wall, monotonic }: Moment): number {
  return Math.max(Date.now() - wall, performance.now() - monotonic);
}
