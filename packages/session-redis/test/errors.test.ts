import { expect, it, vi } from 'vitest';
import { explain } from '../src/errors.ts';

vi.mock('../src/error-rules.ts', () => {
  throw new Error('EMFILE: too many open files');
});

const reply = (message: string) => Object.assign(new Error(message), { name: 'ReplyError' });

it('an error reply is passed on even if the module that explains it cannot be loaded', async () => {
  const failure = await explain(reply('NOREPLICAS Not enough good replicas to write.'));
  expect(failure?.error).toMatchObject({ code: 'refused', cause: { message: expect.stringContaining('NOREPLICAS') } });
});

it('a broken connection is not taken for a reply then', async () => {
  expect(await explain(Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }))).toBeUndefined();
});
