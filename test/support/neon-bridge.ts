import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Client } from 'pg';

/** Neon's SQL over HTTP in front of a PostgreSQL, as far as `neon()` of `@neondatabase/serverless` uses it for single statements. */
export interface NeonBridge extends AsyncDisposable {
  /** The value for `neonConfig.fetchEndpoint`. */
  endpoint: string;
  /** The statements so far. */
  statements: string[];
}

/** Starts a bridge. The URL of the database comes with each request, as at Neon, and needs no password. */
export async function startNeonBridge(): Promise<NeonBridge> {
  const statements: string[] = [];

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const respond = (status: number, body: unknown): void => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    };
    const { query, params } = JSON.parse(await bodyOf(request)) as { query: string; params: string[] };
    statements.push(query);
    const client = new Client({ connectionString: String(request.headers['neon-connection-string']) });
    client.on('error', () => undefined);
    try {
      await client.connect();
      // Neon sends text, and its client converts it to the types of the fields.
      const types = { getTypeParser: () => (text: unknown) => text };
      const { rows, fields, command, rowCount } = await client.query<unknown[]>({
        text: query,
        values: params,
        rowMode: 'array',
        types,
      });
      respond(200, { rows, fields, command, rowCount });
    } catch (error) {
      const { message, code } = error as { message: string; code?: string };
      respond(400, { message, code });
    } finally {
      await client.end();
    }
  };

  const server = createServer((request, response) => void answer(request, response)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}/sql`,
    statements,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  let body = '';
  for await (const chunk of request.setEncoding('utf8')) body += chunk;
  return body;
}
