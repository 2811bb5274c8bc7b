import { readFileSync, statSync } from 'node:fs';
import { relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createError } from '@coatcheck/session-core/driver';

const NAME = '@coatcheck/astro';

/**
 * The path of the module with the schemas; undefined if the site has none.
 *
 * @throws {SessionDriverError} `configuration` if the file does not exist, or has no default export.
 */
export function schemaOf(schema: string | URL | undefined, root: URL): string | undefined {
  if (schema === undefined) return undefined;
  const path = pathOf(schema, root);
  const fail = (what: string): never => {
    const message = `\`schema\` is '${String(schema)}', ${what}. Write a module there whose default export has a Standard Schema for each session key:\n\n  import { z } from 'astro/zod';\n  export default { cart: z.array(z.string()) };`;
    throw createError(NAME, 'configuration', message);
  };
  if (!statSync(path, { throwIfNoEntry: false })?.isFile()) fail('but there is no such file in the project');
  if (!/\bexport\s+default\b|\bexport\s*\{[^}]*\bdefault\b/.test(readFileSync(path, 'utf8')))
    fail('but the module has no default export');
  return path;
}

/** A path may have characters that are special in a URL, and on Windows starts with the letter of a drive. */
function pathOf(schema: string | URL, root: URL): string {
  if (schema instanceof URL || schema.startsWith('file:')) return fileURLToPath(schema);
  return resolve(fileURLToPath(root), schema);
}

/** The types of the site, for `injectTypes`. */
export function typesOf(schema: string | undefined, root: URL): string {
  const folder = fileURLToPath(new URL(`.astro/integrations/${NAME.replace(/[^\w.-]/g, '_')}/`, root));
  // An interface cannot extend `import('...')`.
  const types = [`import type { RequestSessions, SessionDataOf } from '${NAME}';`];
  const data: string[] = [];
  if (schema !== undefined) {
    types.push(`import type schema from ${JSON.stringify(relative(folder, schema).replaceAll('\\', '/'))};`);
    data.push('    interface SessionData extends SessionDataOf<typeof schema> {}');
  }
  return [
    ...types,
    '',
    'declare global {',
    '  namespace App {',
    '    interface Locals {',
    `      /** Set by ${NAME}. Not set for prerendered pages. */`,
    '      sessions: RequestSessions;',
    '    }',
    ...data,
    '  }',
    '}',
    '',
  ].join('\n');
}
