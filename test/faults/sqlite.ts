import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import sqlite from '@coatcheck/session-sqlite/runtime';
import { TIMEOUT_MS, type Fault, type Scene } from './scene.ts';

// SQLite runs in the process of the server, so most faults are those of other processes on the file.

function fault(
  name: string,
  injection: (file: string, client: DatabaseSync) => Pick<Scene, 'inject' | 'repair'>,
  endsByItself = false,
): Fault {
  return {
    name: `SQLite: ${name}`,
    endsByItself,
    async open() {
      const directory = await mkdtemp(join(tmpdir(), 'coatcheck-faults-'));
      const file = join(directory, 'sessions.db');
      const client = new DatabaseSync(file);
      client.exec('PRAGMA journal_mode = WAL');
      return {
        driver: sqlite({ client, timeout: TIMEOUT_MS }),
        ...injection(file, client),
        async close() {
          client.close();
          await rm(directory, { recursive: true });
        },
      };
    },
  };
}

/** Another process that deletes all sessions in a transaction, and keeps the transaction open. */
const TRANSACTION = `new (require('node:sqlite').DatabaseSync)(process.argv[1], { timeout: 1000 })
  .exec('BEGIN IMMEDIATE; DELETE FROM coatcheck_sessions');
setInterval(() => console.log('locked'), 50)`;

export const sqliteFaults: Fault[] = [
  fault('another process keeps a transaction open', (file) => {
    let other: DatabaseSync;
    return {
      async inject() {
        other = new DatabaseSync(file);
        other.exec('BEGIN IMMEDIATE');
      },
      repair: async () => other.close(),
    };
  }),
  fault(
    'another process is killed (`kill -9`) in the middle of a transaction, after 0.3 s',
    (file) => ({
      async inject() {
        const child = spawn(process.execPath, ['--no-warnings', '-e', TRANSACTION, file]);
        await once(child.stdout, 'data');
        await new Promise((resolve) => setTimeout(resolve, 300));
        child.kill('SIGKILL');
        await once(child, 'exit');
      },
    }),
    true,
  ),
  fault('the database becomes read-only', (_file, client) => ({
    inject: async () => client.exec('PRAGMA query_only = ON'),
    repair: async () => client.exec('PRAGMA query_only = OFF'),
  })),
  fault('the disk is full', (_file, client) => {
    const limit = (pages: number) => client.exec(`PRAGMA max_page_count = ${pages}`);
    return {
      async inject() {
        // The pages that the database has already. What is free in them is filled as well.
        limit(1);
        const fill = client.prepare(`INSERT INTO coatcheck_sessions VALUES (?, 9e15, 9e15, ?)`);
        for (let size = 2048, index = 0; size >= 1; index++) {
          try {
            fill.run(`filler${index}`, 'x'.repeat(size));
          } catch {
            size /= 2;
          }
        }
      },
      async repair() {
        limit(100_000);
        client.exec(`DELETE FROM coatcheck_sessions WHERE key LIKE 'filler%'`);
      },
    };
  }),
];
