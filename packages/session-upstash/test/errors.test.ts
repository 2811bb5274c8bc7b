import { expect, it, vi } from 'vitest';
import { explain } from '../src/errors.ts';

vi.mock('../src/error-rules.ts', () => {
  throw new Error('EMFILE: too many open files');
});

const reply = (message: string) => Object.assign(new Error(message), { name: 'UpstashError' });

it('an error reply is passed on even if the module that explains it cannot be loaded', async () => {
  const { error } = await explain(reply('READONLY You cannot write against a read only replica.'));
  expect(error).toMatchObject({ code: 'refused', cause: { message: expect.stringContaining('READONLY') } });
});
