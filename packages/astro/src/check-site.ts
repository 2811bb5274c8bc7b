import { checkCookie, type SessionCookie } from '@coatcheck/session-core/driver';
import { hostOf, lineFor, packagesFor, unsuited } from './hosts.ts';
import { missingVariables } from './variables.ts';

/** The session driver of a site. */
export type SiteDriver =
  /** There is none; `disabled` if the site has `session: false`. */
  | { kind: 'none'; disabled?: boolean }
  /** A Coatcheck package, such as `session-redis`, and its options. */
  | { kind: 'coatcheck'; name: string; config: Readonly<Record<string, unknown>> }
  /** A module of the site itself. What it does is the site's own business. */
  | { kind: 'own' }
  /** Any other, by the name under which Astro imports it. */
  | { kind: 'other'; name: string };

/** What the checks need to know about a site. */
export interface Site {
  /** The name of the adapter, such as `@astrojs/vercel`. Undefined if the site has none. */
  adapter?: string | undefined;
  driver: SiteDriver;
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
export type ProblemSubject = 'no-driver' | 'other-driver' | 'unsuited-driver' | 'missing-variable' | 'cookie';

/** One thing that is wrong with a site. */
export interface Problem {
  subject: ProblemSubject;
  /** Whether it cannot work. Otherwise the problem is advice. */
  isError: boolean;
  /** What is wrong, why, and the line to write. */
  message: string;
}

/** Checks the session configuration of a site. Reads nothing but its argument. */
export function checkSite(site: Site): Problem[] {
  return [...driverProblems(site), ...variableProblems(site), ...cookieProblems(site)];
}

function driverProblems({ adapter, driver, isDev }: Site): Problem[] {
  const host = hostOf(adapter);
  const line = lineFor(packagesFor(host));
  if (driver.kind === 'own') return [];
  if (driver.kind === 'none') {
    const why = driver.disabled ? '`session: false` turns sessions off' : 'The site has no session driver';
    return [advice('no-driver', `${why}, so there is no \`Astro.session\`. ${line}`)];
  }
  if (driver.kind === 'other') {
    const why = `The session driver is ${driver.name}. With it, concurrent requests erase each other's changes`;
    return [advice('other-driver', `${why}. ${line}`)];
  }
  const found = unsuited(host, driver.name, driver.config);
  if (!found || (isDev && found.onlyBuilt)) return [];
  const message = `${driver.name} does not suit ${adapter}: ${found.why}. ${lineFor(found.instead ?? packagesFor(host))}`;
  return [{ subject: 'unsuited-driver', isError: found.isError ?? false, message }];
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

function cookieProblems({ cookie: attributes = {}, base, url, isDev }: Site): Problem[] {
  const cookie = { ...attributes, name: attributes.name ?? 'astro-session' };
  const { name, domain, path = '/', secure } = cookie;
  try {
    checkCookie(cookie);
  } catch (error) {
    return [{ subject: 'cookie', isError: true, message: inConfig((error as Error).message) }];
  }
  const problems: Problem[] = [];
  const warn = (message: string, line: string): void => void problems.push(advice('cookie', withLine(message, line)));

  if (name.length > MAX_NAME_LENGTH) {
    const message = `\`session.cookie.name\` has ${name.length} characters, and browsers drop a cookie of more than 4096 bytes.`;
    problems.push({ subject: 'cookie', isError: true, message: withLine(message, "cookie: { name: 'sid' }") });
  }
  // Astro sets `Secure` in a built site only. In development, browsers then drop cookies that need it.
  const needsSecure = /^__(?:Host|Secure|Http)-/i.test(name) ? name : cookie.sameSite === 'none' ? 'SameSite=None' : '';
  if (isDev && needsSecure !== '' && secure === undefined) {
    const message = `Browsers drop the session cookie in \`astro dev\`: ${needsSecure} needs \`Secure\`, which Astro adds only to a built site.`;
    warn(message, 'cookie: { ..., secure: true }');
  }
  const host = url === undefined ? undefined : hostnameOf(url);
  const bare = domain?.replace(/^\./, '').toLowerCase();
  if (bare !== undefined) {
    const leaveOut = 'cookie: { ... } without `domain`';
    if (/^\d+(?:\.\d+){3}$/.test(bare)) {
      warn(`\`session.cookie.domain\` is an IP address, which has no subdomains.`, leaveOut);
    } else if (isPublicSuffix(bare)) {
      warn(`\`session.cookie.domain\` is \`${domain}\`: browsers drop a cookie for all sites under it.`, leaveOut);
    } else if (host !== undefined && host !== bare && !host.endsWith(`.${bare}`)) {
      warn(
        `\`session.cookie.domain\` is \`${domain}\`, and \`site\` is on ${host}: browsers drop the cookie.`,
        leaveOut,
      );
    }
  }
  if (!isWithin(base, path)) {
    const message = `\`session.cookie.path\` is \`${path}\`, and \`base\` is \`${base}\`: browsers do not send the cookie to the site.`;
    warn(message, `cookie: { ..., path: '${base}' }`);
  }
  return problems;
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
  const folder = (text: string): string => `/${text.replace(/^\/+|\/+$/g, '')}/`.replace('//', '/');
  return folder(base).startsWith(folder(path));
}

function hostnameOf(url: string): string | undefined {
  return URL.canParse(url) ? new URL(url).hostname : undefined;
}

function advice(subject: ProblemSubject, message: string): Problem {
  return { subject, isError: false, message };
}

function withLine(message: string, line: string): string {
  return `${message} Write in astro.config:\n\n  session: { ${line} }`;
}

/** A message of core, with the names that the options have in `astro.config`. */
function inConfig(message: string): string {
  return message.replaceAll('`cookie.', '`session.cookie.');
}
