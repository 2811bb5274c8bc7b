import { parseUrl } from '@coatcheck/session-core/driver';

const URL_FORM =
  'a URL such as postgres://user:password@host:5432/database (in a password, write # / ? @ % as %23 %2F %3F %40 %25)';

/**
 * Parses the URL of a database.
 *
 * @throws an Error with the message `expected ...` if the URL is invalid. It quotes nothing of the URL, which may contain a password.
 */
export function parsePostgresUrl(raw: string): URL {
  // libpq's URLs may leave out the host, for a socket: postgres://user@/database?host=/run/postgresql. `URL` requires one.
  const complete = raw.replace(/^(postgres(?:ql)?:\/\/[^/?#]*@)(?=[/?]|$)/, '$1localhost');
  const url = parseUrl(complete);
  const isValid =
    url &&
    /^postgres(?:ql)?:$/.test(url.protocol) &&
    // Otherwise, a character of the password has ended the host too early.
    url.hash === '' &&
    !url.pathname.includes('@');
  if (!isValid) throw new Error(`expected ${URL_FORM}`);
  return url;
}
