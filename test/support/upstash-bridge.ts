import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { Command, Redis } from 'ioredis';

/** Upstash's REST interface in front of a Redis, as https://upstash.com/docs/redis/features/restapi describes it. */
export interface UpstashBridge extends AsyncDisposable {
  url: string;
  port: number;
  token: string;
  /** The read-only token. */
  readOnlyToken: string;
  /** The requests so far, in order. A test can empty the list. */
  requests: BridgeRequest[];
  /** The number of open connections of clients. */
  readonly connections: number;
  /** The number of requests that have not been answered yet. */
  readonly pending: number;
  /** Changes the token, as in Upstash's console. The old one is refused from now on. */
  changeToken(next: string): void;
  /** Injects a fault into the next `times` requests, or into all. Without a fault, requests succeed again. */
  inject(fault?: Fault, times?: number): void;
  /** Closes the connections without a request, as a server closes idle connections. */
  closeIdleConnections(): void;
}

export interface BridgeRequest {
  path: string;
  headers: IncomingMessage['headers'];
  /** The names of the commands in the request. */
  commands: string[];
  /** Whether the request reached Redis. */
  carriedOut: boolean;
}

export type Fault =
  /** Not executed; answered with this status and body. */
  | { kind: 'status'; status: number; body: string; contentType?: string }
  /** Executed, but answered with this status and body. */
  | { kind: 'answer'; status?: number; body: string }
  /** Executed; half of the reply is sent, as a complete HTTP message. */
  | { kind: 'truncated' }
  /** Executed; the connection breaks in the middle of the reply. */
  | { kind: 'cut' }
  /** Executed; the connection breaks before the reply. */
  | { kind: 'reset' }
  /** Executed, and answered with this delay, in milliseconds. */
  | { kind: 'late'; ms: number }
  /** Not executed, and never answered. */
  | { kind: 'silent' };

const MAX_REQUEST_BYTES = 1024 * 1024;
const READING = new Set([
  'PING',
  'ECHO',
  'GET',
  'MGET',
  'HGET',
  'HGETALL',
  'EXISTS',
  'TTL',
  'PTTL',
  'EVAL_RO',
  'EVALSHA_RO',
]);

type Reply = { result: unknown } | { error: string };

/** Starts a bridge in front of the Redis at `redisUrl`. */
export async function startUpstashBridge(redisUrl: string): Promise<UpstashBridge> {
  // Commands must fail while Redis is down, as at Upstash, and not wait for it.
  const redis = new Redis(redisUrl, { enableOfflineQueue: false, maxRetriesPerRequest: 0, lazyConnect: true });
  redis.on('error', () => undefined);
  await redis.connect();

  let token = 'AbCdEf0123456789-standard';
  const readOnlyToken = 'AbCdEf0123456789-read-only';
  const requests: BridgeRequest[] = [];
  const sockets = new Set<Socket>();
  let fault: Fault | undefined;
  let faultsLeft = 0;
  let pending = 0;
  let writes = 0;

  const command = async ([name = '', ...args]: string[], mayWrite: boolean): Promise<Reply> => {
    const upper = name.toUpperCase();
    if (!mayWrite && !READING.has(upper)) {
      return { error: `NOPERM this user has no permissions to run the '${name.toLowerCase()}' command` };
    }
    try {
      // The names are in upper case, because ioredis transforms the replies of some lower-case commands into objects.
      return { result: await redis.sendCommand(new Command(upper, args, { replyEncoding: null })) };
    } catch (error) {
      return { error: (error as Error).message };
    }
  };

  const transaction = async (commands: string[][], mayWrite: boolean): Promise<Reply[] | Reply> => {
    // It uses a separate connection, because a transaction is a state of its connection.
    const own = redis.duplicate({ enableOfflineQueue: true, lazyConnect: false });
    const send = (name: string, args: string[]) =>
      own.sendCommand(new Command(name, args, { replyEncoding: null })) as Promise<unknown>;
    try {
      const forbidden = mayWrite ? undefined : commands.find(([name = '']) => !READING.has(name.toUpperCase()));
      if (forbidden) return { error: `NOPERM this user has no permissions to run the '${forbidden[0]}' command` };
      await send('MULTI', []);
      for (const [name = '', ...args] of commands) void send(name.toUpperCase(), args).catch(() => undefined);
      const results = (await send('EXEC', [])) as unknown[];
      return results.map((result) => (result instanceof Error ? { error: result.message } : { result }));
    } catch (error) {
      return { error: (error as Error).message };
    } finally {
      own.disconnect();
    }
  };

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url!, 'http://bridge');
    const body = await bodyOf(request);
    const entry: BridgeRequest = { path: url.pathname, headers: request.headers, commands: [], carriedOut: false };
    requests.push(entry);
    const send = (status: number, value: unknown) => respond(response, status, JSON.stringify(value));

    const injected = faultsLeft > 0 ? fault : undefined;
    if (injected) faultsLeft -= 1;
    if (injected?.kind === 'silent') return;
    if (injected?.kind === 'status') return respond(response, injected.status, injected.body, injected.contentType);

    const given = request.headers.authorization?.replace(/^Bearer /, '') ?? url.searchParams.get('_token');
    if (given !== token && given !== readOnlyToken) {
      return send(401, { error: 'WRONGPASS invalid or missing auth token' });
    }
    if (!['GET', 'HEAD', 'POST', 'PUT'].includes(request.method!))
      return send(405, { error: 'ERR method not allowed' });
    if (body.length > MAX_REQUEST_BYTES) {
      const sizes = `Limit: ${MAX_REQUEST_BYTES} bytes, Actual: ${body.length} bytes`;
      return send(400, { error: `ERR max request size exceeded. ${sizes}` });
    }
    const commands = commandsOf(url, body);
    if (!commands) return send(400, { error: 'ERR failed to parse command' });
    entry.commands = commands.map(([name = '']) => name.toUpperCase());
    entry.carriedOut = true;

    const mayWrite = given === token;
    const encode = request.headers['upstash-encoding'] === 'base64' ? toBase64 : toText;
    const encoded = (reply: Reply): Reply => ('result' in reply ? { result: encode(reply.result, true) } : reply);
    let replies: Reply | Reply[];
    if (url.pathname === '/multi-exec') replies = await transaction(commands, mayWrite);
    else if (url.pathname === '/pipeline') replies = await Promise.all(commands.map((it) => command(it, mayWrite)));
    else replies = await command(commands[0]!, mayWrite);
    writes += 1;

    response.setHeader('upstash-sync-token', Buffer.from(`synced:${writes}`).toString('base64'));
    const status = !Array.isArray(replies) && 'error' in replies ? 400 : 200;
    const text = JSON.stringify(Array.isArray(replies) ? replies.map(encoded) : encoded(replies));
    switch (injected?.kind) {
      case undefined:
        return respond(response, status, text);
      case 'answer':
        return respond(response, injected.status ?? 200, injected.body);
      case 'truncated':
        return respond(response, status, text.slice(0, text.length / 2));
      case 'cut':
        response.writeHead(status, { 'content-length': text.length });
        response.write(text.slice(0, text.length / 2), () => request.socket.destroy());
        return;
      case 'reset':
        request.socket.destroy();
        return;
      case 'late':
        setTimeout(() => respond(response, status, text), injected.ms).unref();
        return;
      default:
        throw new Error(`unknown fault ${JSON.stringify(injected)}`);
    }
  };

  const server = createServer((request, response) => {
    pending += 1;
    response.once('close', () => (pending -= 1));
    answer(request, response).catch(() => request.socket.destroy());
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  // The server never closes idle connections; only tests do.
  server.keepAliveTimeout = 0;
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;

  return {
    url: `http://127.0.0.1:${port}`,
    port,
    get token() {
      return token;
    },
    readOnlyToken,
    requests,
    get connections() {
      return sockets.size;
    },
    get pending() {
      return pending;
    },
    changeToken(next) {
      token = next;
    },
    inject(next, times = Infinity) {
      fault = next;
      faultsLeft = next ? times : 0;
    },
    closeIdleConnections: () => server.closeIdleConnections(),
    async [Symbol.asyncDispose]() {
      redis.disconnect();
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

/** `/` and the list endpoints take JSON. On any other path, the path is the command, and a posted body its last argument. */
function commandsOf(url: URL, body: Buffer): string[][] | undefined {
  const text = body.toString();
  const path = url.pathname.split('/').slice(1).map(decodeURIComponent);
  const isList = url.pathname === '/pipeline' || url.pathname === '/multi-exec';
  if (url.pathname !== '/' && !isList) {
    const options = [...url.searchParams]
      .filter(([name]) => name !== '_token')
      .flat()
      .filter((it) => it !== '');
    return [[...path, ...(body.length > 0 ? [text] : []), ...options]];
  }
  try {
    const parsed = JSON.parse(text) as unknown;
    const commands = isList ? parsed : [parsed];
    const fits = Array.isArray(commands) && commands.every((it) => Array.isArray(it) && it.length > 0);
    return fits ? (commands as unknown[][]).map((it) => it.map(String)) : undefined;
  } catch {
    return undefined;
  }
}

function toText(reply: unknown): unknown {
  if (Buffer.isBuffer(reply)) return reply.toString();
  return Array.isArray(reply) ? reply.map(toText) : reply;
}

function toBase64(reply: unknown, isOutermost = false): unknown {
  if (Buffer.isBuffer(reply)) return isOutermost && String(reply) === 'OK' ? 'OK' : reply.toString('base64');
  return Array.isArray(reply) ? reply.map((item) => toBase64(item)) : reply;
}

function respond(response: ServerResponse, status: number, body: string, type = 'application/json'): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) }).end(body);
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
