import { DurableObject } from 'cloudflare:workers';
import { cleanUp, operate, type ObjectStorage, type Request, type Result } from './record.ts';

/**
 * The Durable Object of one session. Export it from the entry module of the Worker, and name it in the configuration of Wrangler.
 *
 * @example
 * export { CoatcheckSession } from '@coatcheck/session-durable-objects/object';
 */
// Cloudflare creates Durable Objects from a class, so there is no way without one. It only passes its storage on.
export class CoatcheckSession extends DurableObject {
  /** Called by the driver. Each call is billed as one request. */
  operate(request: Request): Promise<Result> {
    return operate(this.ctx.storage as ObjectStorage, request);
  }

  /** Called by Cloudflare when the session may have expired. */
  alarm(): Promise<void> {
    return cleanUp(this.ctx.storage as ObjectStorage);
  }
}
