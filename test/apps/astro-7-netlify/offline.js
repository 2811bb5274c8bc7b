// Runs before `astro dev`: the adapter asks the Internet where the machine is, and Astro whether there is a newer version.
import dns from 'node:dns';

const lookup = dns.lookup;

dns.lookup = (host, ...rest) => {
  if (['localhost', '127.0.0.1', '0.0.0.0', '::', '::1'].includes(host)) return lookup(host, ...rest);
  const error = Object.assign(new Error(`${host} is outside of this machine`), { code: 'ENOTFOUND' });
  process.nextTick(rest.at(-1), error);
};
