import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

/**
 * A proxy that simulates network faults. The last call determines the behavior of all connections, open ones included, until the next call.
 */
export interface FaultProxy extends AsyncDisposable {
  port: number;
  /** The number of connections accepted so far. */
  readonly connections: number;
  /** The number of open connections. */
  readonly open: number;
  /** The number of bytes from clients, whether or not they were forwarded. */
  readonly bytesFromClients: number;
  /** The number of bytes that were forwarded to clients. */
  readonly bytesToClients: number;

  /** Forwards everything. Closes connections that lost bytes because of `silence()`. */
  pass(): Promise<void>;
  /** Delays replies, in milliseconds; a function is called for each chunk of data. The order within a connection stays. */
  delay(ms: number | (() => number)): Promise<void>;
  /** Accepts connections, never replies, and drops what clients send. */
  silence(): Promise<void>;
  /** Holds data in both directions. It arrives after `pass()`. */
  hold(): Promise<void>;
  /** Closes each connection after this many more bytes of replies. */
  cut(afterBytes: number): Promise<void>;
  /** Sends replies one byte at a time, each in its own turn of the event loop. */
  trickle(): Promise<void>;
  /** Resets open and new connections. */
  reset(): Promise<void>;
  /** Resets open connections, and refuses new ones, as if nothing listened on the port. */
  refuse(): Promise<void>;
  /** Connects new clients to another local port. */
  redirect(target: number): void;
}

type Mode =
  | { name: 'pass' | 'silence' | 'hold' | 'trickle' | 'reset' | 'refuse' }
  | { name: 'delay'; ms: () => number }
  | { name: 'cut'; afterBytes: number };

interface Link {
  follow(mode: Mode): void;
}

/** An `outage` for the conformance suite: makes the target of a proxy unreachable. Resolves to a function that ends the outage. */
export function outageOf(proxy: FaultProxy): () => Promise<() => Promise<void>> {
  return async () => {
    await proxy.refuse();
    return () => proxy.pass();
  };
}

/** Starts a proxy on a free port. It forwards to the local port `target`. */
export async function startProxy({ target: firstTarget }: { target: number }): Promise<FaultProxy> {
  let target = firstTarget;
  let mode: Mode = { name: 'pass' };
  let connections = 0;
  let bytesFromClients = 0;
  let bytesToClients = 0;
  const links = new Set<Link>();

  // Allows half-open connections, so that the last data of a client is forwarded before its end.
  const server = createServer({ allowHalfOpen: true }, (client) => {
    connections += 1;
    const link = createLink(client, target, {
      fromClient: (bytes) => (bytesFromClients += bytes),
      toClient: (bytes) => (bytesToClients += bytes),
      closed: () => links.delete(link),
    });
    links.add(link);
    link.follow(mode);
  });

  const listen = async (port: number) => {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
  };
  const close = async () => {
    if (!server.listening) return;
    const closed = once(server, 'close');
    server.close();
    await closed;
  };
  const become = async (next: Mode) => {
    mode = next;
    for (const link of links) link.follow(next);
    if (next.name === 'refuse') await close();
    else if (!server.listening) await listen(port);
  };

  await listen(0);
  const { port } = server.address() as AddressInfo;
  return {
    port,
    get connections() {
      return connections;
    },
    get open() {
      return links.size;
    },
    get bytesFromClients() {
      return bytesFromClients;
    },
    get bytesToClients() {
      return bytesToClients;
    },
    pass: () => become({ name: 'pass' }),
    delay: (ms) => become({ name: 'delay', ms: typeof ms === 'number' ? () => ms : ms }),
    silence: () => become({ name: 'silence' }),
    hold: () => become({ name: 'hold' }),
    cut: (afterBytes) => become({ name: 'cut', afterBytes }),
    trickle: () => become({ name: 'trickle' }),
    reset: () => become({ name: 'reset' }),
    refuse: () => become({ name: 'refuse' }),
    redirect: (to) => void (target = to),
    [Symbol.asyncDispose]: () => become({ name: 'refuse' }),
  };
}

interface Watch {
  fromClient(bytes: number): void;
  toClient(bytes: number): void;
  closed(): void;
}

/** A connection of a client, and the connection to the target that belongs to it. */
function createLink(client: Socket, targetPort: number, watch: Watch): Link {
  const target = connect({ port: targetPort, host: '127.0.0.1', allowHalfOpen: true });
  let mode: Mode = { name: 'pass' };
  // A connection that lost bytes cannot be continued.
  let lostBytes = false;
  let bytesUntilCut = Infinity;
  // Data from the target that was not sent to the client yet; `null` is the end.
  const answers: { due: number; data: Buffer | null }[] = [];
  let timer: NodeJS.Timeout | undefined;
  let nextByte: NodeJS.Immediate | undefined;

  const end = (how: 'destroy' | 'resetAndDestroy') => {
    rest();
    client[how]();
    target[how]();
  };

  const rest = () => {
    clearTimeout(timer);
    clearImmediate(nextByte);
  };

  const hear = (data: Buffer | null) => {
    const now = performance.now();
    const due = mode.name === 'delay' ? now + mode.ms() : now;
    answers.push({ due: Math.max(due, answers.at(-1)?.due ?? 0), data });
    passOn();
  };

  const passOn = () => {
    rest();
    if (mode.name === 'hold') return;
    if (mode.name === 'trickle' && answers.length > 0) {
      nextByte = setImmediate(() => {
        answer(firstByte(answers));
        passOn();
      });
      return;
    }
    while (answers.length > 0 && answers[0]!.due <= performance.now()) answer(answers.shift()!.data);
    if (answers.length > 0) timer = setTimeout(passOn, Math.max(0, answers[0]!.due - performance.now()));
  };

  const answer = (data: Buffer | null) => {
    if (mode.name === 'silence') lostBytes = true;
    else if (data === null) client.end();
    else {
      const part = data.subarray(0, bytesUntilCut);
      bytesUntilCut -= part.length;
      watch.toClient(part.length);
      client.write(part, () => bytesUntilCut <= 0 && end('destroy'));
    }
  };

  client.on('data', (data) => {
    watch.fromClient(data.length);
    if (mode.name === 'silence') lostBytes = true;
    else target.write(data);
  });
  client.on('end', () => target.end());
  client.on('error', () => end('destroy'));
  client.on('close', () => {
    end('destroy');
    watch.closed();
  });
  target.on('data', hear);
  target.on('end', () => hear(null));
  target.on('error', () => {
    if (mode.name === 'silence' || mode.name === 'hold') lostBytes = true;
    else end('resetAndDestroy');
  });
  client.setNoDelay(true);
  target.setNoDelay(true);

  return {
    follow(next) {
      mode = next;
      bytesUntilCut = next.name === 'cut' ? next.afterBytes : Infinity;
      const mustEnd = next.name === 'reset' || next.name === 'refuse' || (lostBytes && next.name !== 'silence');
      if (mustEnd) {
        end('resetAndDestroy');
        return;
      }
      if (next.name === 'silence' && answers.length > 0) {
        answers.length = 0;
        lostBytes = true;
      }
      for (const socket of [client, target]) {
        if (next.name === 'hold') socket.pause();
        else socket.resume();
      }
      passOn();
    },
  };
}

/** Takes data out of the queue; `null` if the next item is the end. */
function firstByte(answers: { data: Buffer | null }[]): Buffer | null {
  const [next] = answers;
  const byte = next!.data?.subarray(0, 1) ?? null;
  if (next!.data && next!.data.length > 1) next!.data = next!.data.subarray(1);
  else answers.shift();
  return byte;
}
