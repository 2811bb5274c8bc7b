import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { setTimeout as pause } from 'node:timers/promises';
import { BlobsServer } from '@netlify/blobs/server';

export const SITE = '2b4c6d8e-0000-4000-8000-c0a7c4ec0000';
export const TOKEN = 'token-that-nobody-may-see';

/** A value for NETLIFY_BLOBS_CONTEXT as Netlify sets it, for a blob server on a local port. */
export function contextFor(port: number, changes: Record<string, string | undefined> = {}): string {
  const url = `http://127.0.0.1:${port}`;
  const context = {
    siteID: SITE,
    deployID: 'd3b07384d113edec49eaa6',
    primaryRegion: 'us-east-2',
    token: TOKEN,
    edgeURL: url,
    uncachedEdgeURL: url,
    ...changes,
  };
  return Buffer.from(JSON.stringify(context)).toString('base64');
}

export interface Blobs extends AsyncDisposable {
  port: number;
}

/** Starts Netlify's own development server in this process, on a free port. */
export async function startBlobs(): Promise<Blobs> {
  const directory = await mkdtemp(join(tmpdir(), 'coatcheck-blobs-'));
  const server = new BlobsServer({ directory, token: TOKEN });
  const { port } = await server.start();
  return {
    port,
    async [Symbol.asyncDispose]() {
      await server.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

export interface Gateway extends Blobs {
  /** The requests so far, such as `GET /site/store/name`, without the query. */
  requests: string[];
  /** If it returns a status, the gateway answers with it instead of the storage; `stored` forwards the request first. */
  answerWith: ((method: string, url: string) => number | { stored: number } | undefined) | undefined;
}

/**
 * A gateway in front of the development server. It adds two guarantees that only Netlify's real storage gives: conditional writes are atomic
 * (on the development server, two writes can both see the same version), and the response to a read has an ETag.
 */
export async function startGateway(blobs: Blobs): Promise<Gateway> {
  const requests: string[] = [];
  /** The ETag of each blob, from the response to the write that stored it. */
  const versions = new Map<string, string>();
  let before: Promise<unknown> = Promise.resolve();

  const server = createServer((request, response) => {
    const done = before.then(() => answer(request, response));
    before = done.catch(() => response.destroy());
  });

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { method = 'GET', url = '/', headers } = request;
    const body = await buffer(request);
    requests.push(`${method} ${url.split('?')[0]}`);
    const instead = gateway.answerWith?.(method, url);
    if (typeof instead === 'number') {
      response.writeHead(instead).end();
      return;
    }
    const { host: _host, connection: _connection, 'content-length': _length, ...passed } = headers;
    const to = (path: string, how: string, data: Buffer) =>
      fetch(`http://127.0.0.1:${blobs.port}${path}`, {
        method: how,
        headers: passed as Record<string, string>,
        ...(data.length > 0 && { body: new Uint8Array(data) }),
      });
    const answered = await to(url, method, body);
    const answerHeaders: Record<string, string> = {};
    for (const name of ['etag', 'x-amz-meta-user', 'content-type']) {
      const value = answered.headers.get(name);
      if (value !== null) answerHeaders[name] = value;
    }
    const [path] = url.split('?');
    if (method === 'PUT' && answered.ok) versions.set(path!, answerHeaders.etag!);
    if (method === 'GET' && answered.ok && versions.has(path!)) answerHeaders.etag = versions.get(path!)!;
    // The development server derives versions from the time in milliseconds.
    for (const now = performance.now(); method === 'PUT' && performance.now() < now + 1;) await pause(1);
    const status = instead ? instead.stored : answered.status;
    response.writeHead(status, answerHeaders).end(Buffer.from(await answered.arrayBuffer()));
  };

  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const gateway: Gateway = {
    port: (server.address() as AddressInfo).port,
    requests,
    answerWith: undefined,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
  return gateway;
}
