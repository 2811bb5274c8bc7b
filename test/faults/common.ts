import type { FaultProxy } from '../support/fault-proxy.ts';
import type { Fault, SceneActions } from './scene.ts';

// Faults that every backend can have if it is a process of its own, behind a proxy.

type Actions = Pick<SceneActions, 'inject' | 'repair'>;

/** A backend in a process of its own. */
interface Process {
  kill(): Promise<unknown>;
  restart(): Promise<unknown>;
  freeze(): void;
  thaw(): void;
}

/** The faults of the process of a backend. */
export function processFaults(
  fault: (name: string, actionsOn: (process: Process) => Actions, options?: Pick<Fault, 'endsByItself'>) => Fault,
): Fault[] {
  return [
    fault(
      'killed (`kill -9`) and restarted at once',
      (process) => ({
        async inject() {
          await process.kill();
          await process.restart();
        },
      }),
      { endsByItself: true },
    ),
    fault('killed (`kill -9`) and down for a while', (process) => ({
      inject: () => process.kill(),
      repair: () => process.restart(),
    })),
    fault('frozen (SIGSTOP): connections stay open, but nothing is answered', (process) => ({
      inject: async () => process.freeze(),
      repair: async () => process.thaw(),
    })),
  ];
}

/**
 * The faults of the network in front of a backend.
 *
 * @param replyBytes how much of a reply arrives before its connection breaks.
 */
export function networkFaults(
  fault: (name: string, inject: (proxy: FaultProxy) => Promise<void>) => Fault,
  replyBytes: number = 40,
): Fault[] {
  return [
    fault('network black hole: everything sent is lost', (proxy) => proxy.silence()),
    fault('connections are reset', (proxy) => proxy.reset()),
    fault('connections break in the middle of a reply', (proxy) => proxy.cut(replyBytes)),
  ];
}

/** The actions of a fault of the network. */
export function onNetwork(
  inject: (proxy: FaultProxy) => Promise<void>,
): (process: unknown, proxy: FaultProxy) => Actions {
  return (_process, proxy) => ({ inject: () => inject(proxy), repair: () => proxy.pass() });
}
