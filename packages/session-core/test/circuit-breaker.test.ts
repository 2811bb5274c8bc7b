import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createError } from '../src/contract/errors.ts';
import { createCircuitBreaker } from '../src/engine/circuit-breaker.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const never = () => new Promise<never>(() => undefined);
const unreachable = () => Promise.reject(createError('session-test', 'unavailable', 'No connection.'));

/** A backend that can stop answering, and counts probes. */
function createBackend() {
  const backend = {
    answers: true,
    probes: 0,
    probe: async () => void (backend.probes++, await backend.work()),
    work: async () => (backend.answers ? 'answer' : never()),
  };
  return backend;
}

describe('the deadline', () => {
  it('passes on answers and errors of the backend', async () => {
    const run = createCircuitBreaker({ driver: 'session-test', timeoutMs: 5000, probe: never });
    await expect(run('read', async () => 'answer')).resolves.toBe('answer');
    const failure = run('read', async () => Promise.reject(new Error('WRONGTYPE')));
    await expect(failure).rejects.toMatchObject({ code: 'refused', operation: 'read', driver: 'session-test' });
    expect(vi.getTimerCount()).toBe(0);
  });

  it('rejects an operation that takes longer, and aborts its signal', async () => {
    const run = createCircuitBreaker({ driver: 'session-test', timeoutMs: 5000, probe: never });
    let signal!: AbortSignal;
    const failure = run('patch', (call) => {
      signal = call.signal;
      return never();
    }).catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(4900);
    expect(signal.aborted).toBe(false);
    await vi.advanceTimersByTimeAsync(200);
    expect(signal.aborted).toBe(true);
    expect(await failure).toMatchObject({ code: 'timeout', operation: 'patch' });
  });

  it('leaves the signal aborted for work that looks at it later', async () => {
    const run = createCircuitBreaker({ driver: 'session-test', timeoutMs: 5000, probe: never });
    let kept!: { signal: AbortSignal };
    const failure = run('patch', (call) => ((kept = call), never())).catch(() => undefined);
    await vi.advanceTimersByTimeAsync(5100);
    await failure;
    expect(kept.signal.aborted).toBe(true);
  });

  it('fires late after the process was suspended, so that an answer in the socket is read first', async () => {
    const run = createCircuitBreaker({ driver: 'session-test', timeoutMs: 5000, probe: never });
    let arrive!: (answer: string) => void;
    const result = run('read', () => new Promise<string>((resolve) => (arrive = resolve)));
    // The process was suspended for an hour. An answer is in the socket, and Node reads it after it has run the timers.
    vi.setSystemTime(Date.now() + 3_600_000);
    await vi.advanceTimersByTimeAsync(5000);
    arrive('answer');
    await expect(result).resolves.toBe('answer');
  });
});

describe('a backend that is down', () => {
  it('times out once; then operations fail immediately until a probe is answered', async () => {
    const backend = createBackend();
    const run = createCircuitBreaker({ driver: 'session-test', timeoutMs: 5000, probe: backend.probe });
    backend.answers = false;
    const first = run('read', backend.work).catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(5100);
    expect(await first).toMatchObject({ code: 'timeout' });

    const work = vi.fn<typeof backend.work>(backend.work);
    await expect(run('read', work)).rejects.toMatchObject({ code: 'unavailable' });
    expect(work).not.toHaveBeenCalled();

    const before = backend.probes;
    await vi.advanceTimersByTimeAsync(10_000);
    expect(backend.probes - before).toBeGreaterThan(5);
    expect(backend.probes - before).toBeLessThan(12);

    backend.answers = true;
    await vi.advanceTimersByTimeAsync(1200);
    await expect(run('read', backend.work)).resolves.toBe('answer');
  });

  it('counts as up again after the first answer, even a late one', async () => {
    let answerLate!: (value: string) => void;
    const run = createCircuitBreaker({ driver: 'session-test', timeoutMs: 1000, probe: never });
    const late = run('read', () => new Promise<string>((resolve) => (answerLate = resolve))).catch(() => undefined);
    await vi.advanceTimersByTimeAsync(1100);
    await late;
    await expect(run('read', async () => 'answer')).rejects.toMatchObject({ code: 'unavailable' });
    answerLate('at last');
    await vi.advanceTimersByTimeAsync(0);
    await expect(run('read', async () => 'answer')).resolves.toBe('answer');
  });

  it('is tried by the first operation after an idle time, while others fail immediately', async () => {
    const run = createCircuitBreaker({ driver: 'session-test', timeoutMs: 1000, probe: unreachable });
    await expect(run('read', unreachable)).rejects.toMatchObject({ code: 'unavailable' });
    await vi.advanceTimersByTimeAsync(120_000);
    expect(vi.getTimerCount()).toBe(0);
    const trial = vi.fn<() => Promise<string>>(async () => 'answer');
    const slow = run('read', async () => {
      await expect(run('read', never)).rejects.toMatchObject({ code: 'unavailable' });
      return trial();
    });
    await expect(slow).resolves.toBe('answer');
  });

  it('is not assumed after one timeout while other operations are answered', async () => {
    const run = createCircuitBreaker({ driver: 'session-test', timeoutMs: 1000, probe: never });
    const slow = run('read', never).catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(500);
    await run('read', async () => 'answer');
    await vi.advanceTimersByTimeAsync(600);
    expect(await slow).toMatchObject({ code: 'timeout' });
    await expect(run('read', async () => 'answer')).resolves.toBe('answer');
  });

  it('is reported once when it stops answering and once when it answers again', async () => {
    const events: unknown[] = [];
    const listen = (message: unknown, name: string | symbol) => events.push([name, message]);
    subscribe('coatcheck:outage', listen);
    subscribe('coatcheck:recovery', listen);
    const backend = createBackend();
    const run = createCircuitBreaker({ driver: 'session-test', timeoutMs: 1000, probe: backend.probe });
    backend.answers = false;
    const failures = [run('read', backend.work), run('patch', backend.work)].map((failure) =>
      failure.catch(() => undefined),
    );
    await vi.advanceTimersByTimeAsync(1100);
    await Promise.all(failures);
    backend.answers = true;
    await vi.advanceTimersByTimeAsync(2000);
    unsubscribe('coatcheck:outage', listen);
    unsubscribe('coatcheck:recovery', listen);
    expect(events).toEqual([
      ['coatcheck:outage', { driver: 'session-test' }],
      ['coatcheck:recovery', { driver: 'session-test' }],
    ]);
  });
});

it('errors do not contain commands, arguments or URLs of the client', async () => {
  const run = createCircuitBreaker({ driver: 'session-test', timeoutMs: 1000, probe: never });
  const hostile = Object.assign(
    new Error("ERR unknown command 'EVALSHA', with args beginning with: 'secret-key' 'secret-value'"),
    {
      command: { args: ['secret-key', 'secret-value'] },
      input: 'redis://:secret-password@localhost',
    },
  );
  const error: unknown = await run('read', () => Promise.reject(hostile)).catch((failure: unknown) => failure);
  const everything = inspectDeep(error);
  expect(everything).toContain('unknown command');
  expect(everything).not.toContain('secret');
});

function inspectDeep(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const own = Object.getOwnPropertyNames(error).map((name) =>
    String((error as unknown as Record<string, unknown>)[name]),
  );
  return [...own, inspectDeep(error.cause)].join('\n');
}
