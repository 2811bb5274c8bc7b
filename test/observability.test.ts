import { readFileSync } from 'node:fs';
import memory from '@coatcheck/session-memory/runtime';
import redis from '@coatcheck/session-redis/runtime';
import { SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { redisUrl } from './support/redis-server.ts';

describe('the examples in the docs', () => {
  const page = readFileSync(new URL('../docs/observability.md', import.meta.url), 'utf8');
  const examples = new URL('support/examples/', import.meta.url);

  it.each(['open-telemetry.ts', 'health.ts'])('show %s as it is tested here', (name) => {
    expect(page).toContain(readFileSync(new URL(name, examples), 'utf8'));
  });

  it('create a span for each operation', async () => {
    const exporter = new InMemorySpanExporter();
    trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));
    await import('./support/examples/open-telemetry.ts');
    await memory().getItem('abcdefghijklmnop');
    await expect(memory({ secrets: ['short'] }).removeItem('abcdefghijklmnop')).rejects.toMatchObject({
      code: 'configuration',
    });
    const nowhere = redis({ url: 'redis://127.0.0.1:1', timeout: 1000 });
    await expect(nowhere.removeItem('abcdefghijklmnop')).rejects.toMatchObject({ code: 'unavailable' });
    expect(exporter.getFinishedSpans().map(({ name, kind, status }) => ({ name, kind, ...status }))).toEqual([
      { name: 'session-memory read', kind: SpanKind.CLIENT, code: SpanStatusCode.UNSET },
      {
        name: 'session-redis destroy',
        kind: SpanKind.CLIENT,
        code: SpanStatusCode.ERROR,
        message: expect.stringMatching(/Cannot connect to Redis at 127\.0\.0\.1:1: ECONNREFUSED/),
      },
    ]);
  });

  it('tell a monitor whether sessions work', async () => {
    vi.stubEnv('REDIS_URL', await redisUrl());
    onTestFinished(() => void vi.unstubAllEnvs());
    const { GET } = await import('./support/examples/health.ts');
    const answer = await GET();
    expect([answer.status, ((await answer.json()) as { ok: boolean }).ok]).toEqual([200, true]);
  });
});
