import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createError } from '../src/contract/errors.ts';
import { createCircuitBreaker } from '../src/engine/circuit-breaker.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const never = () => new Promise<never>(() => undefined);
const unreachable = () => Promise.reject(createError('session-test', 'unavailable', 'No connection.'));

/** A backend that is there or not, and counts who asks. */
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
  it('passes answers and refusals on', async () => {
    const guard = createCircuitBreaker({ driver: 'session-test', timeoutMs: 5000, probe: never });
    await expect(guard('read', async () => 'answer')).resolves.toBe('answer');
    const refusal = guard('read', async () => Promise.reject(new Error('WRONGTYPE')));
    await expect(refusal).rejects.toMatchObject({ code: 'refused', operation: 'read', driver: 'session-test' });
    expect(vi.getTimerCount()).toBe(0);
  });

  it('rejects what takes longer, and tells the work to send nothing more', async () => {
    const guard = createCircuitBreaker({ driver: 'session-test', timeoutMs: 5000, probe: never });
    let signal!: AbortSignal;
    const failure = guard('patch', (call) => {
      signal = call.signal;
      return never();
    }).catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(4900);
    expect(signal.aborted).toBe(false);
    await vi.advanceTimersByTimeAsync(200);
    expect(signal.aborted).toBe(true);
    expect(await failure).toMatchObject({ code: 'timeout', operation: 'patch' });
  });

  it('a signal that is asked for too late is aborted', async () => {
    const guard = createCircuitBreaker({ driver: 'session-test', timeoutMs: 5000, probe: never });
    let kept!: { signal: AbortSignal };
    const failure = guard('patch', (call) => ((kept = call), never())).catch(() => undefined);
    await vi.advanceTimersByTimeAsync(5100);
    await failure;
    expect(kept.signal.aborted).toBe(true);
  });

  it('that fires late lets an answer that is already there be read first', async () => {
    const guard = createCircuitBreaker({ driver: 'session-test', timeoutMs: 5000, probe: never });
    let arrive!: (answer: string) => void;
    const result = guard('read', () => new Promise<string>((resolve) => (arrive = resolve)));
    // The process was frozen for an hour; the answer lies in the socket and is read right after the timers.
    vi.setSystemTime(Date.now() + 3_600_000);
    await vi.advanceTimersByTimeAsync(5000);
    arrive('answer');
    await expect(result).resolves.toBe('answer');
  });
});

describe('a backend that is down', () => {
  it('is waited for once; then operations fail at once, until one probe at a time finds it back', async () => {
    const backend = createBackend();
    const guard = createCircuitBreaker({ driver: 'session-test', timeoutMs: 5000, probe: backend.probe });
    backend.answers = false;
    const first = guard('read', backend.work).catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(5100);
    expect(await first).toMatchObject({ code: 'timeout' });

    const work = vi.fn<typeof backend.work>(backend.work);
    await expect(guard('read', work)).rejects.toMatchObject({ code: 'unavailable' });
    expect(work).not.toHaveBeenCalled();

    const before = backend.probes;
    await vi.advanceTimersByTimeAsync(10_000);
    expect(backend.probes - before).toBeGreaterThan(5);
    expect(backend.probes - before).toBeLessThan(12);

    backend.answers = true;
    await vi.advanceTimersByTimeAsync(1200);
    await expect(guard('read', backend.work)).resolves.toBe('answer');
  });

  it('is well again with the first answer, however late', async () => {
    let answerLate!: (value: string) => void;
    const guard = createCircuitBreaker({ driver: 'session-test', timeoutMs: 1000, probe: never });
    const late = guard('read', () => new Promise<string>((resolve) => (answerLate = resolve))).catch(() => undefined);
    await vi.advanceTimersByTimeAsync(1100);
    await late;
    await expect(guard('read', async () => 'answer')).rejects.toMatchObject({ code: 'unavailable' });
    answerLate('at last');
    await vi.advanceTimersByTimeAsync(0);
    await expect(guard('read', async () => 'answer')).resolves.toBe('answer');
  });

  it('is tried anew by whoever comes after a quiet time, while others still fail at once', async () => {
    const guard = createCircuitBreaker({ driver: 'session-test', timeoutMs: 1000, probe: unreachable });
    await expect(guard('read', unreachable)).rejects.toMatchObject({ code: 'unavailable' });
    await vi.advanceTimersByTimeAsync(120_000);
    expect(vi.getTimerCount()).toBe(0);
    const trial = vi.fn<() => Promise<string>>(async () => 'answer');
    const slow = guard('read', async () => {
      await expect(guard('read', never)).rejects.toMatchObject({ code: 'unavailable' });
      return trial();
    });
    await expect(slow).resolves.toBe('answer');
  });

  it('is not what one slow answer among others means', async () => {
    const guard = createCircuitBreaker({ driver: 'session-test', timeoutMs: 1000, probe: never });
    const slow = guard('read', never).catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(500);
    await guard('read', async () => 'answer');
    await vi.advanceTimersByTimeAsync(600);
    expect(await slow).toMatchObject({ code: 'timeout' });
    await expect(guard('read', async () => 'answer')).resolves.toBe('answer');
  });

  it('is reported when it goes and when it is back, once each', async () => {
    const events: unknown[] = [];
    const listen = (message: unknown, name: string | symbol) => events.push([name, message]);
    subscribe('coatcheck:outage', listen);
    subscribe('coatcheck:recovery', listen);
    const backend = createBackend();
    const guard = createCircuitBreaker({ driver: 'session-test', timeoutMs: 1000, probe: backend.probe });
    backend.answers = false;
    const failures = [guard('read', backend.work), guard('patch', backend.work)].map((failure) =>
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

it('keeps commands, arguments and URLs of a client out of what it passes on', async () => {
  const guard = createCircuitBreaker({ driver: 'session-test', timeoutMs: 1000, probe: never });
  const hostile = Object.assign(
    new Error("ERR unknown command 'EVALSHA', with args beginning with: 'secret-key' 'secret-value'"),
    {
      command: { args: ['secret-key', 'secret-value'] },
      input: 'redis://:secret-password@localhost',
    },
  );
  const error: unknown = await guard('read', () => Promise.reject(hostile)).catch((failure: unknown) => failure);
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
