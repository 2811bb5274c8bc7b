// Serves a built site as Netlify does: every request is a call of the function, with a Request and a context.
import { createServer } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { pathToFileURL } from 'node:url';

const { default: handler } = await import(pathToFileURL(join(process.cwd(), '.netlify/v1/functions/ssr/ssr.mjs')).href);

const server = createServer(async (incoming, outgoing) => {
  try {
    const { method, url, rawHeaders } = incoming;
    const headers = new Headers();
    for (let index = 0; index < rawHeaders.length; index += 2) headers.append(rawHeaders[index], rawHeaders[index + 1]);
    const body = method === 'GET' || method === 'HEAD' ? undefined : Readable.toWeb(incoming);
    const request = new Request(new URL(url, `http://${headers.get('host')}`), {
      method,
      headers,
      body,
      duplex: 'half',
    });
    const response = await handler(request, { ip: incoming.socket.remoteAddress, waitUntil: () => {} });
    outgoing.statusCode = response.status;
    for (const [name, value] of response.headers) outgoing.appendHeader(name, value);
    if (response.body) await pipeline(Readable.fromWeb(response.body), outgoing);
    else outgoing.end();
  } catch (error) {
    console.error(error);
    if (!outgoing.headersSent) outgoing.statusCode = 500;
    outgoing.end();
  }
});

server.listen(Number(process.env.PORT), process.env.HOST, () => {
  console.log(`listening on http://${process.env.HOST}:${server.address().port}`);
});
