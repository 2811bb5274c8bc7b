import { spawn } from 'node:child_process';
import { once } from 'node:events';

export interface Janitor {
  /** The server to kill; undefined while none runs. */
  watch(pid: number | undefined): void;
  /** Kills the server, and removes its folder. */
  finish(): Promise<void>;
}

/**
 * A shell that waits for this process to end, kills the server and removes its folder: no exit handler runs when a test
 * runner kills its workers.
 */
export function startJanitor(dir: string): Janitor {
  const script = 'while read -r next; do pid=$next; done; test -z "$pid" || kill -9 "$pid"; rm -rf "$1"';
  const shell = spawn('sh', ['-c', script, 'sh', dir], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
  const exit = once(shell, 'exit');
  shell.unref();
  return {
    watch: (pid) => void shell.stdin.write(`${pid ?? ''}\n`),
    async finish() {
      shell.ref();
      shell.stdin.end();
      await exit;
    },
  };
}
