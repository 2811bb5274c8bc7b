/** A moment by two clocks, because neither tells alone how much time has passed since. */
export interface Moment {
  /** Epoch milliseconds. May be set forward or back. */
  wall: number;
  /** Milliseconds since some moment in this process. Is never set, but stands still while the process is suspended. */
  monotonic: number;
}

export function thisMoment(): Moment {
  return { wall: Date.now(), monotonic: performance.now() };
}

/**
 * How many milliseconds ago a moment of this process was, by the clock that says more: a clock that was set back, and one that stood
 * still, cannot make something old look recent.
 */
export function msSince({ wall, monotonic }: Moment): number {
  return Math.max(Date.now() - wall, performance.now() - monotonic);
}
