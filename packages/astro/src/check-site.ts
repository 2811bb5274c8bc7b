import { checkCookie, type SessionCookie } from '@coatcheck/session-core';
import { hostOf, linesFor, sameBackend, suggestions, unsuited } from './hosts.ts';
import { missingVariables } from './variables.ts';

/** The session driver of a site. */
export type SiteDriver =
  /** There is none; `disabled` if the site has `session: false`. */
  | { kind: 'none'; disabled?: boolean }
  /** A Coatcheck package, such as `session-redis`, and its options. */
  | { kind: 'coatcheck'; name: string; config: Readonly<Record<string, unknown>> }
  /** A module that may create any driver: one of the site itself, or one of a package that uses Coatcheck. What it does is its own business. */
  | { kind: 'own' }
  /** Any other, by the name under which Astro imports it. `isPackage` if it is in a package that nothing is known about. */
  | { kind: 'other'; name: string; isPackage?: boolean };

/** What the checks need to know about a site. */
export interface Site {
  /** The name of the adapter, such as `@astrojs/vercel`. Undefined if the site has none. */
  adapter?: string | undefined;
  driver: SiteDriver;
  /** The Coatcheck packages in the site's `package.json`, such as `session-redis`. */
  installed?: readonly string[] | undefined;
  /** The option `renewCookie` of the integration. */
  renewCookie?: boolean | undefined;
  /** `session.cookie`. */
  cookie?: SessionCookie | undefined;
  /** The path under which the site is deployed. */
  base: string;
  /** The URL of the deployed site; undefined if the site does not say it. */
  url?: string | undefined;
  /** Whether `astro dev` runs. */
  isDev: boolean;
  /** Whether an environment variable is set. Undefined if nobody can know, as in a build: variables are read when the server runs. */
  hasVariable?: ((name: string) => boolean) | undefined;
}

/** The subject of a problem. A site can ignore a subject. */
export type ProblemSubject =
  | 'no-adapter'
  | 'no-driver'
  | 'other-driver'
  | 'unsuited-driver'
  | 'missing-variable'
  | 'cookie';

/** One thing that is wrong with a site. */
export interface Problem {
  subject: ProblemSubject;
  /** Whether it cannot work. Otherwise the problem is advice. */
  isError: boolean;
  /** What is wrong, why, and what to write. */
  message: string;
}

/** Checks the session configuration of a site. Reads nothing but its argument. */
export function checkSite(site: Site): Problem[] {
  return [...adapterProblems(site), ...driverProblems(site), ...variableProblems(site), ...cookieProblems(site)];
}

/** Whether the cookie of a site is to be renewed. It works only with `maxAge`. */
export function wantsRenewal(driver: SiteDriver, renewCookie: boolean | undefined): boolean {
  if (driver.kind === 'own') return renewCookie === true;
  return driver.kind === 'coatcheck' && (renewCookie ?? driver.config['idleTtl'] !== undefined);
}

function adapterProblems({ adapter }: Site): Problem[] {
  return adapter === undefined ? [advice('no-adapter', NO_ADAPTER)] : [];
}

const NO_ADAPTER =
  'The site has no adapter. Without one, all pages are prerendered, and visitors get no session. Run `npx astro add node` (or add the adapter of ' +
  "your host), and write in astro.config:\n\n  output: 'server',\n\nor in each page that uses sessions:\n\n  export const prerender = false;";

function driverProblems({ adapter, driver, installed, isDev }: Site): Problem[] {
  const host = hostOf(adapter);
  const lines = (...first: readonly string[]): string => linesFor(suggestions(host, first, installed), installed);
  if (driver.kind === 'own') return [];
  if (driver.kind === 'coatcheck') {
    const found = unsuited(host, driver.name, driver.config);
    if (!found || (isDev && found.onlyBuilt)) return [];
    const message = `${driver.name} does not suit ${adapter}: ${found.why}. ${found.lines ?? lines(...(found.instead ?? []))}`;
    return [{ subject: 'unsuited-driver', isError: found.isError ?? false, message }];
  }
  // Which driver suits the site depends on the adapter, so that comes first.
  if (adapter === undefined) return [];
  if (driver.kind === 'none') {
    const why = driver.disabled ? '`session: false` turns sessions off' : 'The site has no session driver';
    return [advice('no-driver', `${why}, so there is no \`Astro.session\`. ${lines()}`)];
  }
  const condition = driver.isPackage ? 'Unless it creates a Coatcheck driver' : 'With it';
  const why = `The session driver is ${driver.name}. ${condition}, concurrent requests erase each other's changes`;
  return [advice('other-driver', `${why}. ${lines(...sameBackend(driver.name))}`)];
}

function variableProblems({ driver, hasVariable }: Site): Problem[] {
  if (driver.kind !== 'coatcheck' || !hasVariable) return [];
  return missingVariables(driver.name, driver.config, hasVariable).map(({ name, example }) =>
    advice(
      'missing-variable',
      `${name} is not set, and ${driver.name} needs it. Write in .env:\n\n  ${name}=${example}\n\n` +
        'A deployed server needs it in its own environment.',
    ),
  );
}

function cookieProblems({ cookie: attributes = {}, driver, renewCookie, base, url, isDev }: Site): Problem[] {
  const cookie = { ...attributes, name: attributes.name ?? 'astro-session' };
  const { name, domain, path = '/', secure, maxAge } = cookie;
  try {
    checkCookie(cookie);
  } catch (error) {
    return [{ subject: 'cookie', isError: true, message: inConfig((error as Error).message) }];
  }
  const problems: Problem[] = [];
  const warn = (message: string): void => void problems.push(advice('cookie', message));

  if (name.length > MAX_NAME_LENGTH) {
    const message =
      `\`session.cookie.name\` has ${name.length} characters, and browsers drop a cookie of more than 4096 bytes. ` +
      'Set it to a shorter name, such as `sid`.';
    problems.push({ subject: 'cookie', isError: true, message });
  }
  if (maxAge !== undefined && !Number.isInteger(maxAge)) {
    const message = `\`session.cookie.maxAge\` is \`${maxAge}\`, and Astro sends no cookie then. Set it to a whole number of seconds.`;
    problems.push({ subject: 'cookie', isError: true, message });
  }
  // Astro sets `Secure` in a built site only. In development, browsers then drop cookies that need it.
  const needsSecure = /^__(?:Host|Secure|Http)-/i.test(name) ? name : cookie.sameSite === 'none' ? 'SameSite=None' : '';
  if (isDev && needsSecure !== '' && secure === undefined) {
    warn(
      `Browsers drop the session cookie in \`astro dev\`: ${needsSecure} needs \`Secure\`, which Astro adds only to a built site. ` +
        'Set `session.cookie.secure` to `true`.',
    );
  }
  const wrongDomain = domain && domainProblem(domain, url);
  if (wrongDomain) warn(`\`session.cookie.domain\` is ${wrongDomain}. Remove \`session.cookie.domain\`.`);
  if (!isWithin(base, path)) {
    warn(
      `\`session.cookie.path\` is \`${path}\`, and \`base\` is \`${base}\`: browsers do not send the cookie to the site. ` +
        `Set \`session.cookie.path\` to \`'${base}'\`.`,
    );
  }
  const wrongAge = wantsRenewal(driver, renewCookie) && ageProblem(driver, maxAge);
  if (wrongAge) warn(wrongAge);
  return problems;
}

function domainProblem(domain: string, url: string | undefined): string | undefined {
  const bare = domain.replace(/^\./, '').toLowerCase();
  const host = url === undefined ? undefined : hostnameOf(url);
  if (bare === host || bare === 'localhost') return undefined;
  if (/^\d+(?:\.\d+){3}$/.test(bare)) return 'an IP address, which has no subdomains';
  if (isPublicSuffix(bare)) return `\`${domain}\`: browsers drop a cookie for all sites under it`;
  if (host === undefined || host.endsWith(`.${bare}`)) return undefined;
  return `\`${domain}\`, and \`site\` is on ${host}: browsers drop the cookie`;
}

/** What is wrong with the `maxAge` of a cookie that is to be renewed. */
function ageProblem(driver: SiteDriver, maxAge: number | undefined): string | undefined {
  const idleTtl = driver.kind === 'coatcheck' ? (driver.config['idleTtl'] ?? false) : undefined;
  const set = `Set \`session.cookie.maxAge\` to ${ageFor(idleTtl)}`;
  if (maxAge === undefined) {
    const why =
      'The session cookie cannot be renewed without `session.cookie.maxAge`: browsers keep it until they are closed.';
    return `${why} ${set}, or \`renewCookie\` to \`false\`.`;
  }
  if (typeof idleTtl !== 'number' || maxAge > idleTtl) return undefined;
  return `\`session.cookie.maxAge\` is \`${maxAge}\`, and \`idleTtl\` is \`${idleTtl}\`: the cookie expires before the session. ${set}.`;
}

/** @param idleTtl of the driver: false if it has none. It may be unknown, or come from the environment. */
function ageFor(idleTtl: unknown): string {
  if (idleTtl === false) return 'a number of seconds';
  return typeof idleTtl === 'number'
    ? `\`${idleTtl * 2}\`, twice the \`idleTtl\``
    : 'twice the `idleTtl` of the driver';
}

/** The limit of browsers, 4096 bytes for name and value, without the session id. */
const MAX_NAME_LENGTH = 4096 - 36;

/** Hosts below which everybody can have a site. A sample of https://publicsuffix.org: the hosts on which Astro sites are deployed. */
const SHARED_HOSTS = new Set(
  (
    'amplifyapp.com azurewebsites.net deno.dev fly.dev github.io gitlab.io herokuapp.com netlify.app onrender.com pages.dev railway.app ' +
    'run.app vercel.app web.app workers.dev'
  ).split(' '),
);

function isPublicSuffix(domain: string): boolean {
  // A top-level domain, and the second level below a country such as `co.uk`.
  return !domain.includes('.') || SHARED_HOSTS.has(domain) || /^(?:ac|co|com|gov|net|org)\.[a-z]{2}$/.test(domain);
}

function isWithin(base: string, path: string): boolean {
  // RFC 6265, section 5.1.4: a cookie with the path `/shop/` is not sent to `/shop`.
  const root = `/${base}`.replace('//', '/');
  return root === path || root.startsWith(path.endsWith('/') ? path : `${path}/`);
}

function hostnameOf(url: string): string | undefined {
  return URL.canParse(url) ? new URL(url).hostname : undefined;
}

function advice(subject: ProblemSubject, message: string): Problem {
  return { subject, isError: false, message };
}

/** A message of core, with the names that the options have in `astro.config`. */
function inConfig(message: string): string {
  return message.replaceAll('`cookie.', '`session.cookie.');
}
