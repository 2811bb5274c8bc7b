// The process of the database. Miniflare's D1 cannot be reached from another process, so this Worker passes the requests on. It undoes what
// Miniflare does to them in the Worker with the binding: as in `wrangler dev` with a remote database, the URL is in a header.

interface Env {
  /** Bindings with this prefix are the D1 service itself, without the API around it. */
  __D1_BETA__DB: { fetch(url: string, request: Request): Promise<Response> };
}

export default {
  async fetch(request: Request, { __D1_BETA__DB: database }: Env): Promise<Response> {
    const url = request.headers.get('MF-URL');
    // Miniflare also opens a WebSocket for calls of methods. D1 has none.
    return url === null ? new Response('not found', { status: 404 }) : database.fetch(url, request);
  },
};
