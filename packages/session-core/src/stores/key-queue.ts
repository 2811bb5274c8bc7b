import type { StoreCall } from '../contract/store.ts';
import { type Moment, msSince, thisMoment } from '../platform/clock.ts';

/** One operation that waits for its key. */
export interface Job<Step> {
  readonly step: Step;
  readonly since: Moment;
  /** Whether its caller has been told that it failed. Such a job is not carried out any more. */
  isOver: boolean;
  resolve(answer: unknown): void;
  reject(error: unknown): void;
}

/** The work of one operation, for itself and for those that waited when it began. */
export interface Turn<Step> {
  readonly of: Job<Step>;
  readonly since: Moment;
  /** What is left to do. Jobs that are still here when the work ends are for the next turn. */
  jobs: Job<Step>[];
  /** Set while the jobs are being written: nobody else takes them over then. */
  isSaving: boolean;
}

/** Carries out `turn.jobs`. `isCurrent` is false once another operation has taken the turn over. */
export type Work<Step> = (key: string, turn: Turn<Step>, call: StoreCall, isCurrent: () => boolean) => Promise<void>;

interface Queue<Step> {
  waiting: (Job<Step> & { begin(turn: Turn<Step>): void })[];
  turn: Turn<Step> | undefined;
}

/** An operation that ended earlier than this has not waited long enough to say that the turn before it is stuck. */
const STUCK_AFTER_MS = 500;

/**
 * Operations of one key wait for each other, and those that have waited are handed over together.
 *
 * Every operation does its work in the request that it belongs to, and looks at no signal but its own: what a Cloudflare Worker made in one
 * request, it may not touch in another. A request that is cancelled there takes its work along without a word. So an operation that has
 * waited until its deadline ends the turn that it waited for.
 *
 * @returns a function that adds an operation and resolves to its answer.
 */
export function createKeyQueue<Step>(
  work: Work<Step>,
): <Answer>(key: string, call: StoreCall, step: Step) => Promise<Answer> {
  type Waiting = Queue<Step>['waiting'][number];
  const queues = new Map<string, Queue<Step>>();

  /** Ends the turn, if there is one, and begins the next. */
  const pass = (key: string, queue: Queue<Step>): void => {
    // What is being written is not written by another as well.
    if (queue.turn && !queue.turn.isSaving) putBack(queue, queue.turn);
    queue.waiting = queue.waiting.filter((job) => !job.isOver);
    const [next] = queue.waiting;
    queue.turn = next && { of: next, since: thisMoment(), jobs: [], isSaving: false };
    if (queue.turn) next!.begin(queue.turn);
    else if (queues.get(key) === queue) queues.delete(key);
  };

  const putBack = (queue: Queue<Step>, turn: Turn<Step>): void =>
    void queue.waiting.unshift(...(turn.jobs.splice(0) as Waiting[]));

  return <Answer>(key: string, call: StoreCall, step: Step): Promise<Answer> => {
    if (call.signal.aborted) return Promise.reject(call.signal.reason as Error);
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const { promise: begun, resolve: begin } = Promise.withResolvers<Turn<Step>>();
    const job = { step, since: thisMoment(), isOver: false, begin, resolve, reject } as Waiting;
    const queue = queues.get(key) ?? { waiting: [], turn: undefined };
    const before = queue.turn;

    call.signal.addEventListener('abort', () => {
      job.isOver = true;
      // After the backend's own reason, which says more.
      setTimeout(() => reject(call.signal.reason), 0);
      const isStuck = before && queue.turn === before && msSince(before.since) > STUCK_AFTER_MS;
      if (isStuck) {
        // All that came earlier have waited as long: their callers know it, or are gone.
        for (const other of [...before.jobs, ...queue.waiting])
          other.isOver ||= other.since.monotonic <= job.since.monotonic;
      }
      if (isStuck || queue.turn?.of === job) pass(key, queue);
    });
    void begun.then(async (turn) => {
      if (!job.isOver) {
        turn.jobs = queue.waiting.splice(0);
        try {
          await work(key, turn, call, () => queue.turn === turn);
          putBack(queue, turn);
        } catch (error) {
          // Also the operation whose turn it no longer is: what failed was asked for by its call.
          for (const each of [turn.of, ...turn.jobs.splice(0)]) each.reject(error);
        }
      }
      if (!queue.turn || queue.turn === turn) pass(key, queue);
    });
    queues.set(key, queue);
    queue.waiting.push(job);
    if (!before) pass(key, queue);
    return promise;
  };
}
