import { expect, it } from 'vitest';
import { createSessionId, isSessionId, portableSha256, recordKey } from '../src/engine/session-id.ts';

it('a record key holds the SHA-256 of the id and nothing of the id itself', () => {
  // printf abcdefghijklmnop | openssl dgst -sha256 -binary | basenc --base64url
  expect(recordKey('abcdefghijklmnop')).toBe('session:852sbLq6U14sIHzQzY8VSXQiPISPcn-Ys1ZM6labQc8');
  expect(recordKey('abcdefghijklmnop', 'shop:')).toBe(`shop:${portableSha256('abcdefghijklmnop')}`);
});

it('is the same with and without the hash that the platform brings', () => {
  for (let round = 0; round < 100; round++) {
    const id = createSessionId();
    expect(recordKey(id, '')).toBe(portableSha256(id));
  }
});

it('new ids are ids, and UUIDs of version 4, which is all that Astro 7 takes from a cookie', () => {
  const id = createSessionId();
  expect(isSessionId(id)).toBe(true);
  expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

it.each([
  undefined,
  null,
  7,
  '',
  'short',
  'x'.repeat(129),
  'a/../../etc/passwd',
  'id with spaces here',
  'née-née-née-née-née',
  `${'x'.repeat(20)}\n`,
])('%j is no id', (id) => {
  expect(isSessionId(id)).toBe(false);
});
