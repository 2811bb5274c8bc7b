import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { onTestFinished } from 'vitest';

const SCRIPT = `
import { createSessions } from ${JSON.stringify(import.meta.resolve('@coatcheck/session-core'))};
import redis from ${JSON.stringify(import.meta.resolve('@coatcheck/session-redis/runtime'))};

const attemptWith = async (config) => {
  const session = createSessions({ driver: redis({ timeout: 1000, ...config }) }).open('');
  session.set('value', 1);
  return session.commit().then(() => 'stored', (error) => error.code);
};
const attempt = async (config) => console.log(await attemptWith(config));
`;

export interface Ended {
  code: number | null;
  /** The lines that it printed. */
  stdout: string[];
  stderr: string;
}

/**
 * Runs a script in a process of its own, until it ends by itself: one that does not runs into the limit of the test. It has
 * `attempt(config)`, which stores a session and prints how that went, and `attemptWith(config)`, which resolves to it. `onLine` hears
 * what it prints.
 */
export async function runScript(
  body: string,
  redisUrl: string,
  onLine: (line: string) => void = () => undefined,
): Promise<Ended> {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', SCRIPT + body], {
    env: { PATH: process.env.PATH, REDIS_URL: redisUrl },
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (data: Buffer) => {
    stdout += data.toString();
    for (const line of data.toString().trim().split('\n')) onLine(line);
  });
  child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stdout: stdout.trim().split('\n'), stderr };
}
