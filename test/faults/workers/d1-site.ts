import { fromEnv } from '@coatcheck/session-core';
import d1 from '@coatcheck/session-d1/runtime';
import { serveSite, siteOn } from '../visited-site.ts';

const site = siteOn(d1({ timeout: fromEnv('SESSION_TIMEOUT') }));

export default { fetch: (request: Request): Promise<Response> => serveSite(site, request) };
