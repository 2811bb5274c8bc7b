import { once } from 'node:events';
import { connect } from 'node:net';

/**
 * Asks for one page for so long, over connections that each ask again as soon as they are answered, and resolves to the microseconds that
 * pass between two answers. A generator of its own: those that speak all of HTTP take more of the machine than the servers. Rejects when an
 * answer is not a 200.
 *
 * @param isDone whether to stop, or the milliseconds after which to stop.
 * @param waits gets the microseconds that each answer took.
 */
export async function load(
  address: string,
  path: string,
  cookies: string[],
  isDone: number | (() => boolean),
  waits?: number[],
): Promise<number> {
  const { hostname, port, host } = new URL(address);
  const startedAt = performance.now();
  const goOn = (now: number): boolean => (typeof isDone === 'number' ? now < startedAt + isDone : !isDone());
  let count = 0;

  const connection = async (cookie: string): Promise<void> => {
    const socket = connect(Number(port), hostname).setNoDelay();
    const request = `GET ${path} HTTP/1.1\r\nhost: ${host}\r\ncookie: ${cookie}\r\n\r\n`;
    socket.setEncoding('latin1').write(request);
    let answer = '';
    let askedAt = performance.now();
    socket.on('data', (text: string) => {
      answer += text;
      if (!isWhole(answer)) return;
      if (!answer.startsWith('HTTP/1.1 200')) socket.destroy(new Error(`${path} was answered with ${answer}`));
      answer = '';
      count++;
      const now = performance.now();
      waits?.push((now - askedAt) * 1000);
      askedAt = now;
      if (goOn(now)) socket.write(request);
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
