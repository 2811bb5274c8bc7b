import { expect, it } from 'vitest';
import { createSessionId, isSessionId, portableSha256, recordKey } from '../src/engine/session-id.ts';

it('a record key contains the SHA-256 of the id, and not the id itself', () => {
  // printf abcdefghijklmnop | openssl dgst -sha256 -binary | basenc --base64url
  expect(recordKey('abcdefghijklmnop')).toBe('session:852sbLq6U14sIHzQzY8VSXQiPISPcn-Ys1ZM6labQc8');
  expect(recordKey('abcdefghijklmnop', 'shop:')).toBe(`shop:${portableSha256('abcdefghijklmnop')}`);
});

it('a record key is the same with the hash of Node and with the portable one', () => {
  for (let round = 0; round < 100; round++) {
    const id = createSessionId();
    expect(recordKey(id, '')).toBe(portableSha256(id));
  }
});

it('a new id is a valid id, and a UUID of version 4, because Astro 7 accepts nothing else from a cookie', () => {
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
])('%j is not a valid id', (id) => {
  expect(isSessionId(id)).toBe(false);
});
