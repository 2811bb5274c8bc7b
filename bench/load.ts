import { once } from 'node:events';
import { connect } from 'node:net';

/**
 * Asks for one page for so long, over connections that each ask again as soon as they are answered, and resolves to the microseconds that
 * pass between two answers. A generator of its own: those that speak all of HTTP take more of the machine than the servers. Rejects when an
 * answer is not a 200.
 */
export async function load(address: string, path: string, cookies: string[], ms: number): Promise<number> {
  const { hostname, port, host } = new URL(address);
  const startedAt = performance.now();
  const endsAt = startedAt + ms;
  let count = 0;

  const connection = async (cookie: string): Promise<void> => {
    const socket = connect(Number(port), hostname).setNoDelay();
    const request = `GET ${path} HTTP/1.1\r\nhost: ${host}\r\ncookie: ${cookie}\r\n\r\n`;
    socket.setEncoding('latin1').write(request);
    let answer = '';
    socket.on('data', (text: string) => {
      answer += text;
      if (!isWhole(answer)) return;
      if (!answer.startsWith('HTTP/1.1 200')) socket.destroy(new Error(`${path} was answered with ${answer}`));
      answer = '';
      count++;
      if (performance.now() < endsAt) socket.write(request);
      else socket.destroy();
    });
    await once(socket, 'close');
  };

  await Promise.all(cookies.map(connection));
  return ((performance.now() - startedAt) * 1000) / count;
}

function isWhole(answer: string): boolean {
  const headEnd = answer.indexOf('\r\n\r\n');
  if (headEnd < 0) return false;
  const length = /\r\ncontent-length: *(\d+)/i.exec(answer)?.[1];
  return length === undefined ? answer.endsWith('0\r\n\r\n') : answer.length >= headEnd + 4 + Number(length);
}
