/** The name of a script in `scripts.ts`. */
export type Script = 'patch' | 'touch' | 'destroy';

/** The SHA-1 of each script, by which Redis finds it. If you change a script, its test prints the new hash. */
export const hashes: Record<Script, string> = {
  patch: 'd0e9e63198c8abce95ca63cd08cf713a7c275e8b',
  touch: '2021852fd71816a7338389c2098634aca46bb2b1',
  destroy: 'ec27589e411b2b69feee555a55d1f896602e5ec1',
};
