// What Vercel's launcher for Node does: serves the function beside it, over HTTP.
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

const folder = new URL('../_render.func/', import.meta.url);
const { handler } = JSON.parse(await readFile(new URL('.vc-config.json', folder), 'utf8'));
const { default: serverless } = await import(new URL(handler, folder).href);

const server = createServer(async (incoming, outgoing) => {
  const { method } = incoming;
  const body = method === 'GET' || method === 'HEAD' ? undefined : Readable.toWeb(incoming);
  const headers = Object.entries(incoming.headersDistinct).flatMap(([name, values]) => values.map((it) => [name, it]));
  const request = new Request(`http://${incoming.headers.host}${incoming.url}`, {
    method,
    headers,
    body,
    duplex: 'half',
  });
  const response = await serverless.fetch(request);
  outgoing.statusCode = response.status;
  outgoing.setHeaders(response.headers);
  if (response.body) await pipeline(Readable.fromWeb(response.body), outgoing);
  else outgoing.end();
});

server.listen(Number(process.env.PORT), process.env.HOST, () => {
  console.log(`listening on http://${process.env.HOST}:${server.address().port}`);
});
