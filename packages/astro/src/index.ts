import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createError } from '@coatcheck/session-core/driver';
import type { AstroConfig, AstroIntegration } from 'astro';
import { checkSite, type Problem, type ProblemSubject, type Site, wantsRenewal } from './check-site.ts';
import type { DevOptions } from './dev.ts';
import type { MiddlewareOptions, SentCookie } from './middleware.ts';
import { startRecording } from './recording.ts';
import { schemaOf, typesOf } from './schema.ts';
import { driverOf, installedIn, moduleOf, variablesIn } from './site.ts';
import { TOOLBAR_PATH } from './toolbar-protocol.ts';

export type { ProblemSubject } from './check-site.ts';
export type { CurrentSession, RequestSessions, SchemaLike, SessionDataOf } from './types.ts';

/** The options of the integration. */
export interface CoatcheckOptions {
  /**
   * The module whose default export has a Standard Schema for each session key, such as `./src/session-schema.ts`. It types
   * `App.SessionData`, and with it `Astro.session`. A relative path starts at the root of the project. Values are not validated.
   *
   * @default none (session values have the type `any`)
   */
  schema?: string | URL | undefined;
  /**
   * Whether the session cookie is renewed while visitors use their sessions without changing them. Needs `session.cookie.maxAge`. Set it to
   * true if a module of the site creates a driver with `idleTtl`: the integration cannot see the options of that driver.
   *
   * @default true if the driver in the configuration has `idleTtl`
   */
  renewCookie?: boolean | undefined;
  /**
   * Subjects whose warnings are not logged. Errors are always reported.
   *
   * @default none
   */
  ignore?: readonly ProblemSubject[] | undefined;
}

const NAME = '@coatcheck/astro';
const MIDDLEWARE = 'virtual:coatcheck/middleware';

/**
 * The Astro integration of Coatcheck. It checks the session configuration, sets `locals.sessions`, renews session cookies and types
 * `Astro.session`. The driver itself stays in the site's `session`.
 *
 * @throws {SessionDriverError} `configuration` for unknown and wrong options. Astro's hooks throw it for what cannot work.
 * @example
 * export default defineConfig({
 *   integrations: [coatcheck({ schema: './src/session-schema.ts' })],
 *   session: { driver: redisDriver() },
 * });
 */
export default function coatcheck(options: CoatcheckOptions = {}): AstroIntegration {
  checkOptions(options);
  // What the virtual module needs. The final configuration is known only when the configuration is done.
  let site: { config: AstroConfig; isDev: boolean } | undefined;
  let command = '';
  let hasToolbar = false;

  return {
    name: NAME,
    hooks: {
      'astro:config:setup'({ command: current, config, addMiddleware, addDevToolbarApp, injectRoute, updateConfig }) {
        command = current;
        addMiddleware({ order: 'pre', entrypoint: MIDDLEWARE });
        // A site without an adapter has no pages with sessions, and Astro would warn of the route.
        hasToolbar = command === 'dev' && config.devToolbar.enabled && config.adapter !== undefined;
        if (hasToolbar) {
          startRecording();
          injectRoute({
            pattern: TOOLBAR_PATH,
            entrypoint: new URL('./dev-route.js', import.meta.url),
            prerender: false,
          });
          addDevToolbarApp({
            id: 'coatcheck',
            name: 'Session',
            icon: ICON,
            entrypoint: fileURLToPath(new URL('./toolbar.js', import.meta.url)),
          });
        }
        updateConfig({
          vite: {
            plugins: [
              {
                name: `${NAME}/middleware`,
                resolveId: { filter: { id: EXACTLY_MIDDLEWARE }, handler: () => `\0${MIDDLEWARE}` },
                load: {
                  filter: { id: EXACTLY_RESOLVED },
                  async handler() {
                    const creation = await creationOf(site!.config, async (name) => (await this.resolve(name))?.id);
                    return middlewareModule(site!.config, site!.isDev, creation, hasToolbar, options);
                  },
                },
              },
            ],
          },
        });
      },
      'astro:config:done'({ config, injectTypes, logger }) {
        site = { config, isDev: command === 'dev' };
        injectTypes({ filename: 'types.d.ts', content: typesOf(schemaOf(options.schema, config.root), config.root) });
        // Other commands, such as `astro sync`, run no pages.
        if (command !== 'dev' && command !== 'build') return;
        const problems = checkSite(factsOf(config, site.isDev, options));
        for (const problem of problems) {
          if (!problem.isError && !options.ignore?.includes(problem.subject)) warnOnce(config, problem, logger);
        }
        const errors = problems.filter(({ isError }) => isError).map(({ message }) => message);
        if (errors.length > 0) throw createError(NAME, 'configuration', errors.join('\n\n'));
      },
      // Astro passes this path only if the adapter runs middleware on the edge. Nothing tells it earlier.
      'astro:build:ssr'({ middlewareEntryPoint }) {
        if (middlewareEntryPoint) throw createError(NAME, 'configuration', ON_THE_EDGE);
      },
    },
  };
}

/** A coat check's tag. */
const ICON =
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.4" stroke-linejoin="round"><path d="M8 1.2 12.8 5v8.6a1.2 1.2 0 0 1-1.2 1.2H4.4a1.2 1.2 0 0 1-1.2-1.2V5Z"/><circle cx="8" cy="5.6" r="1.1"/><path d="M5.8 9.4h4.4M5.8 11.9h2.8" stroke-linecap="round"/></svg>';

const EXACTLY_MIDDLEWARE = new RegExp(`^${MIDDLEWARE}$`);
const EXACTLY_RESOLVED = new RegExp(`^\0${MIDDLEWARE}$`);

const ON_THE_EDGE =
  "The adapter runs middleware on the edge, where Astro has no sessions and a driver may not run. Remove `middlewareMode: 'edge'` (in older " +
  'versions, `edgeMiddleware: true`) from the options of the adapter, or remove this integration.';

const SUBJECTS: readonly ProblemSubject[] = [
  'no-adapter',
  'no-driver',
  'other-driver',
  'unsuited-driver',
  'missing-variable',
  'cookie',
];

function checkOptions(options: CoatcheckOptions): void {
  const { schema, renewCookie, ignore = [], ...unknown } = options;
  const fail = (message: string): never => {
    throw createError(NAME, 'configuration', message);
  };
  const [name] = Object.keys(unknown);
  if (name !== undefined)
    fail(`There is no option \`${name}\`. The options are \`schema\`, \`renewCookie\` and \`ignore\`.`);
  if (schema !== undefined && typeof schema !== 'string' && !(schema instanceof URL))
    fail('`schema` must be the path of a module.');
  if (renewCookie !== undefined && typeof renewCookie !== 'boolean') fail('`renewCookie` must be true or false.');
  if (!Array.isArray(ignore) || !ignore.every((subject) => SUBJECTS.includes(subject as ProblemSubject))) {
    fail(`\`ignore\` must be a list of ${SUBJECTS.map((subject) => `'${subject}'`).join(', ')}.`);
  }
}

/** `astro dev` runs the hooks again after each change of the configuration. */
const warned = new Set<string>();

function warnOnce({ root }: AstroConfig, { message }: Problem, logger: { warn(message: string): void }): void {
  const key = `${root.href} ${message}`;
  if (warned.has(key)) return;
  warned.add(key);
  logger.warn(message);
}

function factsOf(config: AstroConfig, isDev: boolean, { renewCookie }: CoatcheckOptions): Site {
  const adapter = config.adapter?.name;
  const { envDir } = config.vite;
  const root = fileURLToPath(config.root);
  const envFolder = resolve(root, typeof envDir === 'string' ? envDir : '');
  return {
    adapter,
    driver: driverOf(config.session, root),
    installed: installedIn(root),
    renewCookie,
    cookie: cookieOf(config),
    base: config.base,
    url: config.site,
    isDev,
    // Wrangler has variables of its own, in its configuration and in `.dev.vars`.
    hasVariable: isDev && adapter !== '@astrojs/cloudflare' ? variablesIn(envFolder) : undefined,
  };
}

function cookieOf(config: AstroConfig): { name?: string } & Partial<SentCookie> {
  const { cookie } = (config.session || {}) as { cookie?: string | Partial<SentCookie> };
  const attributes = typeof cookie === 'string' ? { name: cookie } : (cookie ?? {});
  return Object.fromEntries(Object.entries(attributes).filter(([, value]) => value !== undefined));
}

/**
 * The expression that creates the driver, as Astro does. Undefined if the driver is known not to be Coatcheck's, or its module is not found.
 *
 * @param find resolves to the path of a module with a name.
 */
async function creationOf(
  { session, root }: AstroConfig,
  find: (name: string) => Promise<string | undefined>,
): Promise<string | undefined> {
  const driver = driverOf(session, fileURLToPath(root));
  const module = moduleOf(session);
  if (!module || (driver.kind === 'other' && !driver.isPackage)) return undefined;
  const path = module.path ?? (await find(module.name));
  return path && `(await import(${pathLiteral(path)})).default(${JSON.stringify(module.config) ?? ''})`;
}

/**
 * The source of the middleware's entrypoint. It imports the site's driver when that is first needed.
 *
 * @param creation the expression that creates the driver; undefined if the site has no Coatcheck driver.
 */
function middlewareModule(
  config: AstroConfig,
  isDev: boolean,
  creation: string | undefined,
  hasToolbar: boolean,
  options: CoatcheckOptions,
): string {
  const driver = driverOf(config.session, fileURLToPath(config.root));
  // As Astro completes them.
  const cookie: SentCookie = { name: 'astro-session', sameSite: 'lax', secure: !isDev, path: '/', ...cookieOf(config) };
  const renewCookie = wantsRenewal(driver, options.renewCookie) && cookie.maxAge !== undefined;
  const toolbarPath = config.base.replace(/\/$/, '') + TOOLBAR_PATH;
  const serialized: Omit<MiddlewareOptions & Partial<DevOptions>, 'createDriver'> = {
    cookie,
    renewCookie,
    ...(hasToolbar && { toolbarPath }),
  };
  const [create, file] = hasToolbar ? ['createDevMiddleware', './dev.js'] : ['createMiddleware', './middleware.js'];
  return [
    `import { ${create} } from ${pathLiteral(new URL(file, import.meta.url))};`,
    `export const onRequest = ${create}({`,
    `  ...${JSON.stringify(serialized)},`,
    ...(creation === undefined ? [] : [`  createDriver: async () => ${creation},`]),
    `});`,
  ].join('\n');
}

function pathLiteral(path: string | URL): string {
  return JSON.stringify((path instanceof URL ? fileURLToPath(path) : path).replaceAll('\\', '/'));
}
