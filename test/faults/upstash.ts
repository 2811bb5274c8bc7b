import upstash from '@coatcheck/session-upstash/runtime';
import { startProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { startRedis } from '../support/redis-server.ts';
import { startUpstashBridge, type UpstashBridge } from '../support/upstash-bridge.ts';
import { networkFaults } from './common.ts';
import { TIMEOUT_MS, type Fault } from './scene.ts';

interface Parts {
  bridge: UpstashBridge;
  proxy: FaultProxy;
}

function fault(name: string, inject: (parts: Parts) => unknown): Fault {
  return {
    name: `Upstash: ${name}`,
    async open() {
      const server = await startRedis();
      const bridge = await startUpstashBridge(server.url);
      const proxy = await startProxy({ target: bridge.port });
      const { token } = bridge;
      return {
        driver: upstash({ url: `http://127.0.0.1:${proxy.port}`, token, timeout: TIMEOUT_MS }),
        inject: async () => inject({ bridge, proxy }),
        async repair() {
          bridge.inject();
          bridge.changeToken(token);
          await proxy.pass();
        },
        async close() {
          for (const part of [proxy, bridge, server]) await part[Symbol.asyncDispose]();
        },
      };
    },
  };
}

const tooMany = '{"error":"Too Many Requests"}';

export const upstashFaults: Fault[] = [
  ...networkFaults((name, inject) => fault(name, ({ proxy }) => inject(proxy))),
  fault('too many requests (429)', ({ bridge }) => bridge.inject({ kind: 'status', status: 429, body: tooMany })),
  fault('server error (500)', ({ bridge }) =>
    bridge.inject({ kind: 'status', status: 500, body: '{"error":"Internal Server Error"}' }),
  ),
  fault('token changed', ({ bridge }) => bridge.changeToken('another')),
];
