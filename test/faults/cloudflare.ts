import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { FIRST_ISOLATE, startIsolates, type Isolates, type Resources } from '../support/isolates.ts';
import { workerds } from '../support/workerds.ts';
import { networkFaults, onNetwork, processFaults } from './common.ts';
import { TIMEOUT_MS, type Fault, type SceneActions } from './scene.ts';
import { siteAt, type VisitedSite } from './visited-site.ts';

// The driver runs in a Worker, as in production. What it calls runs in another workerd process, which these faults kill, freeze or cut off.

/** A service of Cloudflare. The Workers are in `workers/`. */
export interface Service {
  /** The Worker in the process of the service. */
  backend: string;
  /** What `backend` is bound to. */
  resources: Resources;
  /** The Worker with the driver. */
  site: string;
  /** What `site` is bound to. `address` leads to `backend`. */
  resourcesAt(address: string): Resources;
}

export const d1: Service = {
  backend: 'd1-backend.ts',
  resources: { d1Databases: { __D1_BETA__DB: 'sessions' } },
  site: 'd1-site.ts',
  resourcesAt: (address) => ({
    d1Databases: { DB: { id: 'sessions', remoteProxyConnectionString: new URL(`http://${address}`) } },
  }),
};

const objects = (className: string) => ({ className, scriptName: FIRST_ISOLATE, useSQLite: true });

export const durableObjects: Service = {
  backend: 'objects-backend.ts',
  resources: { durableObjects: { SESSIONS: objects('CoatcheckSession') } },
  site: 'objects-site.ts',
  resourcesAt: (address) => ({
    durableObjects: { SESSIONS: objects('Relay') },
    serviceBindings: { BACKEND: { external: { address, http: {} } } },
  }),
};

/** A site in a Worker, and the process of the service that it uses. */
export interface CloudflareSite extends AsyncDisposable {
  site: VisitedSite;
  /** Between the two processes. */
  proxy: FaultProxy;
  /** Kills the process of the service. */
  kill(): Promise<void>;
  /** Starts it again, with the same data. */
  restart(): Promise<void>;
  /** Suspends it: its connections stay open. */
  freeze(): void;
  thaw(): void;
}

/** Starts both processes. `timeoutMs` is the option `timeout` of the driver, in milliseconds. */
export async function startCloudflareSite(service: Service, timeoutMs: number): Promise<CloudflareSite> {
  const persist = await mkdtemp(join(tmpdir(), 'coatcheck-workerd-'));
  let backend: Isolates;
  let pid: number;

  const start = async (): Promise<number> => {
    const others = workerds();
    backend = await startIsolates(workerOf(service.backend), 1, service.resources, { persist });
    pid = workerds().find((id) => !others.includes(id))!;
    return Number(backend.all[0]!.url.port);
  };

  const proxy = await startProxy({ target: await start() });
  const front = await startIsolates(workerOf(service.site), 1, {
    ...service.resourcesAt(`127.0.0.1:${proxy.port}`),
    bindings: { SESSION_TIMEOUT: String(timeoutMs) },
  });
  return {
    site: siteAt(front.all[0]!),
    proxy,
    freeze: () => void process.kill(pid, 'SIGSTOP'),
    thaw: () => void process.kill(pid, 'SIGCONT'),
    async kill() {
      process.kill(pid, 'SIGKILL');
      // Otherwise Miniflare starts it again.
      await backend[Symbol.asyncDispose]();
    },
    async restart() {
      proxy.redirect(await start());
    },
    async [Symbol.asyncDispose]() {
      for (const part of [front, proxy, backend]) await part[Symbol.asyncDispose]();
      await rm(persist, { recursive: true });
    },
  };
}

function workerOf(file: string): URL {
  return new URL(`workers/${file}`, import.meta.url);
}

const MARK = '⁵';

/** The footnote about these faults. */
export const cloudflareNote: string =
  `${MARK} The driver runs in a Worker in workerd, Cloudflare's runtime. The database or the objects are in another workerd process, as Miniflare ` +
  "implements them for local development; Cloudflare's own network has no part in this. The two processes talk over HTTP, through a proxy that " +
  'breaks connections. For this, a Worker in front of the database passes each request on, and so does a Durable Object in front of the objects. A ' +
  'Worker cannot probe a backend between two requests. Therefore the recovery takes up to 1.5 s if a request has opened the circuit breaker.';

function faultsOf(name: string, service: Service): Fault[] {
  const fault = (
    what: string,
    actionsOn: (site: CloudflareSite, proxy: FaultProxy) => Pick<SceneActions, 'inject' | 'repair'>,
    options: Pick<Fault, 'endsByItself'> = {},
  ): Fault => ({
    name: `${name}: ${what} ${MARK}`,
    ...options,
    async open() {
      const started = await startCloudflareSite(service, TIMEOUT_MS);
      const actions = actionsOn(started, started.proxy);
      return { site: started.site, ...actions, close: async () => started[Symbol.asyncDispose]() };
    },
  });
  return [...processFaults(fault), ...networkFaults((what, inject) => fault(what, onNetwork(inject)))];
}

export const cloudflareFaults: Fault[] = [...faultsOf('D1', d1), ...faultsOf('Durable Objects', durableObjects)];
