import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { startProxy } from '@coatcheck/test-support/fault-proxy';
import { freePort } from '@coatcheck/test-support/ports';
import { expect, it, onTestFinished } from 'vitest';
import { newDatabase, openClient } from './support/store.ts';

// Nothing of the driver keeps a process alive: each script must end by itself, or the test fails at its time limit.

const SCRIPT = `
import { createRequire } from 'node:module';
import { createSessions } from ${JSON.stringify(import.meta.resolve('@coatcheck/session-core'))};
import { postgresDriver } from ${JSON.stringify(import.meta.resolve('@coatcheck/session-postgres'))};
import postgres from ${JSON.stringify(import.meta.resolve('@coatcheck/session-postgres/runtime'))};

const attempt = async (config) => {
  const session = createSessions({ driver: postgres(config) }).open('');
  session.set('value', 1);
  console.log(await session.commit().then(() => 'stored', (error) => error.code));
};
`;

async function run(body: string, url: string): Promise<unknown> {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', SCRIPT + body], {
    env: { PATH: process.env.PATH, DATABASE_URL: url },
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (data: Buffer) => (stdout += data.toString()));
  child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stdout: stdout.trim().split('\n'), stderr };
}

it('a script that has stored sessions ends by itself', async () => {
  const ended = await run(
    'await Promise.all([1, 2, 3].map(() => attempt({ timeout: 600_000 })));',
    await newDatabase(),
  );
  expect(ended).toEqual({ code: 0, stdout: ['stored', 'stored', 'stored'], stderr: '' });
});

it('a script that cannot reach PostgreSQL ends by itself, and nothing is printed', async () => {
  const ended = await run('await attempt({ timeout: 500 });', `postgres://127.0.0.1:${await freePort()}/shop`);
  expect(ended).toEqual({ code: 0, stdout: ['unavailable'], stderr: '' });
});

it('a script whose PostgreSQL stops answering ends by itself, and nothing is printed', async () => {
  const url = await newDatabase();
  const proxy = await startProxy({ target: Number(new URL(url).port) });
  onTestFinished(() => proxy[Symbol.asyncDispose]());
  const { port } = proxy;
  const running = run(
    `await Promise.all([attempt({ timeout: 3000 }), attempt({ timeout: 3000 })]);
     await fetch('http://127.0.0.1:${await onVisit(() => proxy.silence())}');
     await attempt({ timeout: 3000 });`,
    url.replace(/:\d+\//, `:${port}/`),
  );
  expect(await running).toEqual({ code: 0, stdout: ['stored', 'stored', 'timeout'], stderr: '' });
});

it('a script whose write is canceled ends by itself', async () => {
  const url = await newDatabase();
  const blocker = await openClient(url);
  const lock = () => blocker.query('BEGIN; LOCK TABLE coatcheck_sessions IN ACCESS EXCLUSIVE MODE');
  const running = run(
    `await attempt({ timeout: 3000 });
     await fetch('http://127.0.0.1:${await onVisit(lock)}');
     await attempt({ timeout: 3000 });`,
    url,
  );
  expect(await running).toEqual({ code: 0, stdout: ['stored', 'timeout'], stderr: '' });
});

it('pg is loaded when it is first needed', async () => {
  const body = `
    postgresDriver();
    postgres();
    const isLoaded = () => Object.keys(createRequire('/').cache).some((file) => /[\\\\/]pg[\\\\/]lib/.test(file));
    console.log(isLoaded());
    await attempt({ timeout: 60_000 });
    console.log(isLoaded());
  `;
  expect(await run(body, await newDatabase())).toMatchObject({ stdout: ['false', 'stored', 'true'] });
});

/** A server for the script to visit when it is time to act. Resolves to its port. */
async function onVisit(act: () => Promise<unknown>): Promise<number> {
  const { createServer } = await import('node:http');
  const server = createServer((_request, response) => {
    response.setHeader('connection', 'close');
    void act().then(() => response.end());
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  return (server.address() as { port: number }).port;
}
