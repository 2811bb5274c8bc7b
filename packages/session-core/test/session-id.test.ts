import { expect, it, vi } from 'vitest';
import { createSessionId, isSessionId, recordKey } from '../src/engine/session-id.ts';

// printf abcdefghijklmnop | openssl dgst -sha256 -binary | basenc --base64url
const HASH = '852sbLq6U14sIHzQzY8VSXQiPISPcn-Ys1ZM6labQc8';

it('a record key contains the SHA-256 of the id, and not the id itself', async () => {
  expect(await recordKey('abcdefghijklmnop')).toBe(`session:${HASH}`);
  expect(await recordKey('abcdefghijklmnop', 'shop:')).toBe(`shop:${HASH}`);
});

it('a record key is the same in a runtime without `node:crypto`', async () => {
  const ids = Array.from({ length: 100 }, createSessionId);
  const keys = await Promise.all(ids.map((id) => recordKey(id)));
  const getBuiltinModule = vi.spyOn(process, 'getBuiltinModule').mockReturnValue(undefined);
  vi.resetModules();
  const elsewhere = await import('../src/engine/session-id.ts');
  expect(await Promise.all(ids.map((id) => elsewhere.recordKey(id)))).toEqual(keys);
  expect(getBuiltinModule).toHaveBeenCalledWith('node:crypto');
  getBuiltinModule.mockRestore();
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
