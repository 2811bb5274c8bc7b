import type { SessionNamespace } from '@coatcheck/session-durable-objects/runtime';
import { parse, stringify } from 'devalue';

// The process of the objects. Passes the calls of `Relay` on to them.

export { CoatcheckSession } from '@coatcheck/session-durable-objects/object';

export default {
  async fetch(request: Request, { SESSIONS }: { SESSIONS: SessionNamespace }): Promise<Response> {
    const name = decodeURIComponent(new URL(request.url).pathname.slice(1));
    const object = SESSIONS.get(SESSIONS.idFromName(name));
    return new Response(stringify(await object.operate(parse(await request.text()))));
  },
};
