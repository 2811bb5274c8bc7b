import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

/**
 * A stretch of network that misbehaves on command. What the last call said holds for every connection, those that are open
 * included, until the next call.
 */
export interface FaultProxy extends AsyncDisposable {
  port: number;
  /** Connections accepted so far. */
  readonly connections: number;
  /** Connections open now. */
  readonly open: number;
  /** Bytes that came from clients, whether or not they were passed on. */
  readonly bytesFromClients: number;
  /** Bytes that were passed on to clients. */
  readonly bytesToClients: number;

  /** Everything goes through. Connections that lost bytes to `silence()` are closed. */
  pass(): Promise<void>;
  /** Answers wait; a function is asked for every piece of data. The order of one connection's data stays. */
  delay(ms: number | (() => number)): Promise<void>;
  /** Connections are accepted and nothing is ever answered: what clients send is lost. */
  silence(): Promise<void>;
  /** Nothing moves, in either direction, and nothing is lost: it arrives after `pass()`. */
  hold(): Promise<void>;
  /** Every connection is closed after so many more bytes of answers. */
  cut(afterBytes: number): Promise<void>;
  /** Answers come one byte at a time, each in a turn of its own. */
  trickle(): Promise<void>;
  /** Open connections are reset, and so is every new one. */
  reset(): Promise<void>;
  /** Open connections are reset; new ones are refused, as if nothing listened there. */
  refuse(): Promise<void>;
}

type Mode =
  | { name: 'pass' | 'silence' | 'hold' | 'trickle' | 'reset' | 'refuse' }
  | { name: 'delay'; ms: () => number }
  | { name: 'cut'; afterBytes: number };

interface Link {
  follow(mode: Mode): void;
}

/** For the conformance suite: makes what is behind a proxy unreachable, and resolves to what ends that. */
export function outageOf(proxy: FaultProxy): () => Promise<() => Promise<void>> {
  return async () => {
    await proxy.refuse();
    return () => proxy.pass();
  };
}

/** Starts one between a port that the system chooses and `target` on this machine. */
export async function startProxy({ target }: { target: number }): Promise<FaultProxy> {
  let mode: Mode = { name: 'pass' };
  let connections = 0;
  let bytesFromClients = 0;
  let bytesToClients = 0;
  const links = new Set<Link>();

  // Half-open, so that a client's last words are passed on before its end is.
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
    [Symbol.asyncDispose]: () => become({ name: 'refuse' }),
  };
}

interface Watch {
  fromClient(bytes: number): void;
  toClient(bytes: number): void;
  closed(): void;
}

/** One client's connection and the one to the target that goes with it. */
function createLink(client: Socket, targetPort: number, watch: Watch): Link {
  const target = connect({ port: targetPort, host: '127.0.0.1', allowHalfOpen: true });
  let mode: Mode = { name: 'pass' };
  // A peer that missed bytes cannot go on as if nothing had happened.
  let lostBytes = false;
  let bytesUntilCut = Infinity;
  // What the target said and the client has not heard yet; `null` is the end.
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

/** Takes it out of the queue; `null` when the next thing in it is the end. */
function firstByte(answers: { data: Buffer | null }[]): Buffer | null {
  const [next] = answers;
  const byte = next!.data?.subarray(0, 1) ?? null;
  if (next!.data && next!.data.length > 1) next!.data = next!.data.subarray(1);
  else answers.shift();
  return byte;
}
