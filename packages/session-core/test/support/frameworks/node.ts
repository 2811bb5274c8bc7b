import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { sessions } from './sessions.ts';

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const session = sessions.open(request.headers.cookie);
  const visits = await session.update('visits', (count = 0) => count + 1);
  const setCookie = await session.commit();
  response.writeHead(200, setCookie ? { 'set-cookie': setCookie } : {}).end(`Visit ${visits}`);
}
export const server = createServer((request, response) => {
  answer(request, response).catch(() => response.writeHead(500).end());
});
