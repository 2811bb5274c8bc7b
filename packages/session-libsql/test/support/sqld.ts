import { spawn, type ChildProcess } from 'node:child_process';
import { generateKeyPairSync, sign } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '@coatcheck/test-support/ports';

/** A libSQL server (`sqld`), of the package `sqld`. */
export interface Sqld extends AsyncDisposable {
  url: string;
  /** A token that the server accepts. */
  authToken: string;
  process: ChildProcess;
  /** Kills the server. */
  kill(): Promise<void>;
  /** Starts it again, with the same port and data. */
  restart(): Promise<void>;
  /** Suspends the server: its connections stay open. */
  freeze(): void;
  thaw(): void;
  /** Runs a statement past the driver. Resolves to its rows. */
  query(sql: string, ...args: (string | number | null)[]): Promise<Record<string, unknown>[]>;
}

/** Starts a server with an empty database. Resolves when it answers. */
export async function startSqld(): Promise<Sqld> {
  const folder = mkdtempSync(join(tmpdir(), 'coatcheck-sqld-'));
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const keyFile = join(folder, 'key.pem');
  writeFileSync(keyFile, publicKey.export({ type: 'spki', format: 'pem' }));
  const unsigned = [{ alg: 'EdDSA', typ: 'JWT' }, { a: 'rw' }].map(base64url).join('.');
  const authToken = `${unsigned}.${sign(null, Buffer.from(unsigned), privateKey).toString('base64url')}`;
  const address = `127.0.0.1:${await freePort()}`;
  const url = `http://${address}`;
  const args = ['--db-path', join(folder, 'data'), '--http-listen-addr', address, '--auth-jwt-key-file', keyFile];
  let child: ChildProcess;

  const { createClient } = await import('@libsql/client/http');
  const client = createClient({ url, authToken });

  const start = async (): Promise<void> => {
    child = spawn(binary(), [...args, '--no-welcome'], { stdio: 'ignore' });
    for (;;) {
      if (child.exitCode !== null) throw new Error(`sqld ended with ${child.exitCode}`);
      const isUp = await fetch(`${url}/health`).then(
        ({ ok }) => ok,
        () => false,
      );
      if (isUp) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  const kill = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  };

  await start();
  return {
    url,
    authToken,
    get process() {
      return child;
    },
    kill,
    restart: start,
    freeze: () => void child.kill('SIGSTOP'),
    thaw: () => void child.kill('SIGCONT'),
    async query(sql, ...values) {
      const { rows, columns } = await client.execute({ sql, args: values });
      return rows.map((row) => Object.fromEntries(columns.map((name) => [name, row[name]])));
    },
    async [Symbol.asyncDispose]() {
      await kill();
      rmSync(folder, { recursive: true });
    },
  };
}

const base64url = (part: object): string => Buffer.from(JSON.stringify(part)).toString('base64url');

function binary(): string {
  const ofSqld = createRequire(createRequire(import.meta.url).resolve('sqld/package.json'));
  const { platform, arch } = process;
  return join(ofSqld.resolve(`@sqld/${platform}-${arch}/package.json`), '../sqld');
}
