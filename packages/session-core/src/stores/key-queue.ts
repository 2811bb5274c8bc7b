import type { StoreCall } from '../contract/store.ts';
import { type Moment, msSince, thisMoment } from '../platform/clock.ts';

/** One operation in the queue of its key. */
export interface Job<Step> {
  readonly step: Step;
  /** When it was enqueued. */
  readonly since: Moment;
  /** Whether it has already failed for its caller. Such a job must not be carried out any more. */
  isOver: boolean;
  resolve(answer: unknown): void;
  reject(error: unknown): void;
}

/** One batch of jobs. The first of them, the leader, does the work for all jobs that were waiting when the turn began. */
export interface Turn<Step> {
  readonly leader: Job<Step>;
  /** When the turn began. */
  readonly since: Moment;
  /** The jobs that are not finished. Those that are left when the work ends go to the next turn. */
  jobs: Job<Step>[];
  /** Whether the jobs are being written now. Meanwhile, no other turn may take them over. */
  isSaving: boolean;
}

/** Carries out `turn.jobs`. `isCurrent` returns false once another job has ended this turn because it was stuck. */
export type Work<Step> = (key: string, turn: Turn<Step>, call: StoreCall, isCurrent: () => boolean) => Promise<void>;

interface Queue<Step> {
  waiting: (Job<Step> & { begin(turn: Turn<Step>): void })[];
  turn: Turn<Step> | undefined;
}

/** A turn that has lasted for less than this does not count as stuck. */
const STUCK_AFTER_MS = 500;

/**
 * Creates a queue that runs the operations of each key one batch at a time. All operations that are waiting when a batch begins are carried
 * out together.
 *
 * Each operation does its work in its own request, and uses only its own signal, because a Cloudflare Worker may not use objects of one
 * request in another. When a request is canceled there, its work stops without an error. So an operation that has waited until its deadline
 * ends the turn that it was waiting for.
 *
 * @returns a function that adds an operation and resolves to its result.
 */
export function createKeyQueue<Step>(
  work: Work<Step>,
): <Answer>(key: string, call: StoreCall, step: Step) => Promise<Answer> {
  type Waiting = Queue<Step>['waiting'][number];
  const queues = new Map<string, Queue<Step>>();

  /** Ends the current turn, if there is one, and begins the next. */
  const startNextTurn = (key: string, queue: Queue<Step>): void => {
    // Jobs that are being written stay with their turn. Otherwise they would be written twice.
    if (queue.turn && !queue.turn.isSaving) putBack(queue, queue.turn);
    queue.waiting = queue.waiting.filter((job) => !job.isOver);
    const [next] = queue.waiting;
    queue.turn = next && { leader: next, since: thisMoment(), jobs: [], isSaving: false };
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
    const turnBefore = queue.turn;

    call.signal.addEventListener('abort', () => {
      job.isOver = true;
      // In a later task, so that the backend's own error comes first: it says more.
      setTimeout(() => reject(call.signal.reason), 0);
      const isStuck = turnBefore && queue.turn === turnBefore && msSince(turnBefore.since) > STUCK_AFTER_MS;
      if (isStuck) {
        // Earlier jobs have waited at least as long, so they have also failed, or their requests were canceled.
        for (const other of [...turnBefore.jobs, ...queue.waiting])
          other.isOver ||= other.since.monotonic <= job.since.monotonic;
      }
      if (isStuck || queue.turn?.leader === job) startNextTurn(key, queue);
    });
    void begun.then(async (turn) => {
      if (!job.isOver) {
        turn.jobs = queue.waiting.splice(0);
        try {
          await work(key, turn, call, () => queue.turn === turn);
          putBack(queue, turn);
        } catch (error) {
          // The leader must be rejected even if its job is no longer in this turn: its own call failed.
          for (const each of [turn.leader, ...turn.jobs.splice(0)]) each.reject(error);
        }
      }
      if (!queue.turn || queue.turn === turn) startNextTurn(key, queue);
    });
    queues.set(key, queue);
    queue.waiting.push(job);
    if (!turnBefore) startNextTurn(key, queue);
    return promise;
  };
}
