import { fromEnv } from '@coatcheck/session-core';
import { CoatcheckSession } from '@coatcheck/session-durable-objects/object';
import durableObjects from '@coatcheck/session-durable-objects/runtime';
import { parse, stringify } from 'devalue';
import { serveSite, siteOn } from '../visited-site.ts';

const site = siteOn(durableObjects({ timeout: fromEnv('SESSION_TIMEOUT') }));

export default { fetch: (request: Request): Promise<Response> => serveSite(site, request) };

/**
 * The object that the driver calls. A binding reaches only objects of its own process, so this one passes each call on to the other process,
 * over HTTP.
 */
export class Relay extends CoatcheckSession {
  // Of the class of Cloudflare, whose types the tests do not have.
  declare ctx: { storage: never; id: { name: string } };
  declare env: { BACKEND: { fetch(url: string, init: RequestInit): Promise<Response> } };

  override async operate(request: unknown): ReturnType<CoatcheckSession['operate']> {
    const url = `http://backend/${encodeURIComponent(this.ctx.id.name)}`;
    const response = await this.env.BACKEND.fetch(url, { method: 'POST', body: stringify(request) });
    if (!response.ok) throw new Error(`The other process answers with status ${response.status}.`);
    return parse(await response.text()) as Awaited<ReturnType<CoatcheckSession['operate']>>;
  }
}
