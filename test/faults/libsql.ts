import libsql from '@coatcheck/session-libsql/runtime';
import { startSqld, type Sqld } from '../../packages/session-libsql/test/support/sqld.ts';
import { startProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { networkFaults, onNetwork, processFaults } from './common.ts';
import { TIMEOUT_MS, type Fault, type Scene } from './scene.ts';

type Actions = Pick<Scene, 'inject' | 'repair'>;

/** A fault of a libSQL server, or of the network in front of it. */
function libsqlFault(
  name: string,
  actionsOn: (server: Sqld, proxy: FaultProxy) => Actions | Promise<Actions & AsyncDisposable>,
  options: Omit<Fault, 'name' | 'open'> = {},
): Fault {
  return {
    name: `libSQL: ${name}`,
    ...options,
    async open() {
      const server = await startSqld();
      const proxy = await startProxy({ target: portOf(server) });
      const actions = await actionsOn(server, proxy);
      return {
        driver: libsql({
          url: `http://127.0.0.1:${proxy.port}`,
          authToken: server.authToken,
          timeout: TIMEOUT_MS,
        }),
        ...actions,
        async close() {
          if (Symbol.asyncDispose in actions) await actions[Symbol.asyncDispose]();
          for (const part of [proxy, server]) await part[Symbol.asyncDispose]();
        },
      };
    },
  };
}

function portOf({ url }: Sqld): number {
  return Number(new URL(url).port);
}

/** From now on, another server answers at the address. */
async function moveTo(server: Sqld, proxy: FaultProxy): Promise<void> {
  proxy.redirect(portOf(server));
  await proxy.reset();
  await proxy.pass();
}

export const libsqlFaults: Fault[] = [
  ...processFaults(libsqlFault),
  ...networkFaults((name, inject) => libsqlFault(name, onNetwork(inject))),
  libsqlFault('the server suddenly has another key, connections closed', async (server, proxy) => {
    const other = await startSqld();
    return {
      inject: () => moveTo(other, proxy),
      repair: () => moveTo(server, proxy),
      [Symbol.asyncDispose]: () => other[Symbol.asyncDispose](),
    };
  }),
];
