import { defineDriver, type SharedOptions, type SessionDriver } from '@coatcheck/session-core/driver';
import { stringify } from 'devalue';
import { describe, expect, it } from 'vitest';
import { openMemoryStore } from '../../session-memory/src/store.ts';
import { collectGarbage } from '@coatcheck/test-support/garbage';

/** An object that the application passes in, such as a client or a Worker's binding. */
class Client {
  readonly name = 'client';
}

interface Config extends SharedOptions {
  client?: Client | undefined;
}

const REQUESTS = 200;
const ID = '6b5c3f0e-1d2a-4c3b-8a49-0f1e2d3c4b5a';

function define(): (config?: Config) => SessionDriver {
  return defineDriver<Config>({
    name: `session-shared-${crypto.randomUUID()}`,
    options: { client: { read: (raw) => raw as Client } },
    // Real stores keep a reference to their client, too.
    open: ({ client }) => ({ ...openMemoryStore({ maxSessions: 10 }), client }),
  });
}

const save = (driver: SessionDriver): Promise<void> =>
  driver.setItem(ID, stringify(new Map([['user', { data: 'ada' }]])));

describe('drivers that are created in every request', () => {
  it('with a new client each: clients are garbage-collected when nothing else refers to them', async () => {
    const driver = define();
    const clients: WeakRef<Client>[] = [];
    for (let request = 0; request < REQUESTS; request++) {
      const client = new Client();
      clients.push(new WeakRef(client));
      await save(driver({ client }));
    }
    await collectGarbage();
    // The engine may still refer to the last ones.
    expect(clients.filter((client) => client.deref()).length).toBeLessThan(REQUESTS / 10);
  });

  it('with one client share its sessions as long as the application keeps it', async () => {
    const driver = define();
    const client = new Client();
    await save(driver({ client }));
    await collectGarbage();
    expect(await driver({ client }).getItem(ID)).not.toBeNull();
    expect(await driver({ client: new Client() }).getItem(ID)).toBeNull();
  });

  it('with equal options share their sessions as long as the process runs', async () => {
    const driver = define();
    await save(driver({}));
    await collectGarbage();
    expect(await driver({}).getItem(ID)).not.toBeNull();
  });
});
