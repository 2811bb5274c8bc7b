import { execFileSync } from 'node:child_process';

/** The ids of the workerd processes that this process has started. */
export function workerds(): number[] {
  const rows = execFileSync('ps', ['-A', '-o', 'pid=,ppid=,comm='], { encoding: 'utf8' }).trim().split('\n');
  const processes = rows.map((row) => row.trim().split(/\s+/));
  return processes
    .filter(([, parent, command]) => Number(parent) === process.pid && command!.endsWith('workerd'))
    .map(([pid]) => Number(pid));
}
