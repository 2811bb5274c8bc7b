import netlifyBlobs from '@coatcheck/session-netlify-blobs/runtime';
import { contextFor, startBlobs, startGateway } from '../../packages/session-netlify-blobs/test/support/blobs.ts';
import { startProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { networkFaults } from './common.ts';
import { TIMEOUT_MS, type Fault } from './scene.ts';

function fault(name: string, inject: (proxy: FaultProxy) => Promise<void>): Fault {
  return {
    name: `Netlify Blobs: ${name}`,
    async open() {
      const blobs = await startBlobs();
      const gateway = await startGateway(blobs);
      const proxy = await startProxy({ target: gateway.port });
      process.env['NETLIFY_BLOBS_CONTEXT'] = contextFor(proxy.port);
      return {
        // Each fault has its own store. Otherwise its driver would share a circuit breaker with the drivers of earlier faults.
        driver: netlifyBlobs({ name: `store-${proxy.port}`, timeout: TIMEOUT_MS }),
        inject: () => inject(proxy),
        repair: () => proxy.pass(),
        async close() {
          delete process.env['NETLIFY_BLOBS_CONTEXT'];
          for (const part of [proxy, gateway, blobs]) await part[Symbol.asyncDispose]();
        },
      };
    },
  };
}

export const netlifyBlobsFaults: Fault[] = [
  ...networkFaults(fault),
  fault('connection refused', (proxy) => proxy.refuse()),
];
