import { parse, stringify } from 'devalue';

// Programs and results travel as devalue text, so that a test can hand in, and see come back, every value that a session
// can hold. A function stands for a value that it cannot hold.
export const encode = (value: unknown): string =>
  stringify(value, { Function: (it: unknown) => typeof it === 'function' });

export const decode = (text: string): any => parse(text, { Function: () => () => undefined });
