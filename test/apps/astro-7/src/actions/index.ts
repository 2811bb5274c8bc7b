import { defineAction } from 'astro:actions';
import { runProgram } from '../program.ts';
import { decode, encode } from '../wire.ts';

export const server = {
  run: defineAction({
    handler: async ({ program }: { program: string }, { session }) =>
      encode(await runProgram(session!, decode(program))),
  }),
};
