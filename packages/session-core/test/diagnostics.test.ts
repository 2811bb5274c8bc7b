import { AsyncLocalStorage } from 'node:async_hooks';
import { tracingChannel } from 'node:diagnostics_channel';
import { check, createSessions, sweep, type TracedOperation } from '@coatcheck/session-core';
import { describe, expect, it, onTestFinished } from 'vitest';
import { createBackend, createBrowser } from './support/backend.ts';

/** Collects all messages about one kind of operation, in order. */
function listenTo(operation: string): [string, TracedOperation][] {
  const channel = tracingChannel<TracedOperation, TracedOperation>(`coatcheck:${operation}`);
  const seen: [string, TracedOperation][] = [];
  const names = ['start', 'end', 'asyncStart', 'asyncEnd', 'error'] as const;
  const subscribers = Object.fromEntries(
    names.map((name) => [name, (message: TracedOperation) => void seen.push([name, { ...message }])]),
  ) as Record<(typeof names)[number], (message: TracedOperation) => void>;
  channel.subscribe(subscribers);
  onTestFinished(() => channel.unsubscribe(subscribers));
  return seen;
}

describe('a subscriber', () => {
  it.each(['read', 'patch', 'destroy'])(
    'learns when a %s starts and ends, and nothing about the session',
    async (operation) => {
      const seen = listenTo(operation);
      const { driver } = createBackend();
      const browser = createBrowser(createSessions({ driver }));
      await browser.visit((session) => session.set('user', 'a-value-of-a-visitor'));
      await browser.visit((session) => session.get('user'));
      const { id } = browser;
      await browser.visit((session) => session.destroy());
      expect(seen.map(([name]) => name)).toEqual(['start', 'end', 'asyncStart', 'asyncEnd']);
      for (const [, message] of seen) {
        expect(message).toMatchObject({ driver: expect.stringMatching(/^session-test-/), operation });
        expect(JSON.stringify(message)).not.toMatch(new RegExp(`a-value|user|${id}`));
      }
    },
  );

  it('receives the same error as the caller', async () => {
    const seen = listenTo('read');
    const backend = createBackend();
    backend.before = () => Promise.reject(new Error('disk full'));
    const failure: unknown = await backend.driver.getItem('abcdefghijklmnop').catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: 'refused' });
    expect(seen.map(([name]) => name)).toEqual(['start', 'end', 'error', 'asyncStart', 'asyncEnd']);
    expect(seen[2]![1].error).toBe(failure);
  });

  it('can bind an async context to the operation, as OpenTelemetry does', async () => {
    const spans = new AsyncLocalStorage<string>();
    const { start } = tracingChannel('coatcheck:read');
    start.bindStore(spans, () => 'span of the read');
    onTestFinished(() => void start.unbindStore(spans));
    const backend = createBackend();
    let span: string | undefined;
    backend.before = () => (span = spans.getStore());
    await backend.driver.getItem('abcdefghijklmnop');
    expect(span).toBe('span of the read');
  });
});

describe('check()', () => {
  it('reports each step with its duration, and leaves no session behind', async () => {
    const backend = createBackend();
    const { ok, driver, steps } = await check(backend.driver);
    expect({ ok, driver, names: steps.map(({ name }) => name) }).toEqual({
      ok: true,
      driver: expect.stringMatching(/^session-test-/),
      names: ['connect', 'write', 'read', 'remove'],
    });
    for (const { ms } of steps) expect(ms).toBeGreaterThanOrEqual(0);
    expect(backend.calls).toEqual(['read', 'patch', 'read', 'destroy']);
  });

  it.each([
    ['connect', 'read', 0],
    ['write', 'patch', 0],
    ['read', 'read', 1],
    ['remove', 'destroy', 0],
  ] as const)('reports which step fails and why: %s', async (name, operation, after) => {
    const backend = createBackend();
    let passed = 0;
    backend.before = (asked) => {
      if (asked === operation && passed++ === after) throw new Error('disk full');
    };
    const { ok, steps } = await check(backend.driver);
    expect(ok).toBe(false);
    expect(steps.at(-1)).toMatchObject({ name, error: { code: 'refused', cause: { message: 'disk full' } } });
    expect(steps.slice(0, -1).every(({ error }) => error === undefined)).toBe(true);
  });

  it('reports a backend that does not return what was written', async () => {
    const backend = createBackend();
    backend.after = (operation, answer) => (operation === 'read' ? null : answer);
    const { ok, steps } = await check(backend.driver);
    expect(ok).toBe(false);
    expect(steps.at(-1)).toMatchObject({
      name: 'read',
      error: { message: expect.stringMatching(/not the one that was just written/) },
    });
  });

  it('reports wrong options', async () => {
    const { ok, steps } = await check(createBackend({ secrets: ['short'] }).driver);
    expect(ok).toBe(false);
    expect(steps).toEqual([
      { name: 'connect', ms: expect.any(Number), error: expect.objectContaining({ code: 'configuration' }) },
    ]);
  });

  it('accepts only Coatcheck drivers, as does sweep()', async () => {
    const driver = { getItem: async () => null, setItem: async () => undefined, removeItem: async () => undefined };
    await expect(check(driver)).rejects.toThrow(TypeError);
    await expect(sweep(driver)).rejects.toThrow(TypeError);
  });
});
