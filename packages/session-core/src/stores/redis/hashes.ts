/** The name of a script in `scripts.ts`. */
export type Script = 'patch' | 'touch' | 'destroy';

/** The SHA-1 of each script, by which Redis finds it. If you change a script, its test prints the new hash. */
export const hashes: Record<Script, string> = {
  patch: 'd543672ccb46bbe9f86eadb7e42427ce465eba1b',
  touch: '3383cac537b107539b8f563fa5c814c27a4ae860',
  destroy: 'ec27589e411b2b69feee555a55d1f896602e5ec1',
};
