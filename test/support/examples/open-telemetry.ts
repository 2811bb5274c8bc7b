import { tracingChannel } from 'node:diagnostics_channel';
import type { TracedOperation } from '@coatcheck/session-core';
import { SpanKind, SpanStatusCode, trace, type Span } from '@opentelemetry/api';

const tracer = trace.getTracer('coatcheck');
const spans = new WeakMap<TracedOperation, Span>();

for (const operation of ['read', 'patch', 'destroy'] as const) {
  tracingChannel<unknown, TracedOperation>(`coatcheck:${operation}`).subscribe({
    start: (message) =>
      spans.set(message, tracer.startSpan(`${message.driver} ${operation}`, { kind: SpanKind.CLIENT })),
    error: (message) => spans.get(message)?.setStatus({ code: SpanStatusCode.ERROR, message: String(message.error) }),
    asyncEnd: (message) => spans.get(message)?.end(),
    // The type requires all five handlers.
    end() {},
    asyncStart() {},
  });
}
