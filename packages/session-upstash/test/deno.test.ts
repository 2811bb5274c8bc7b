import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, expect, it, onTestFinished } from 'vitest';
import { redisUrl } from '@coatcheck/test-support/redis-server';
import { startUpstashBridge } from '@coatcheck/test-support/upstash-bridge';

const bridge = await startUpstashBridge(await redisUrl());
afterAll(() => bridge[Symbol.asyncDispose]());

it(
  'passes the conformance suite in Deno, with permissions for Upstash and environment variables only',
  { timeout: 120_000 },
  async () => {
    const deno = fileURLToPath(import.meta.resolve('deno/bin.cjs'));
    const script = fileURLToPath(new URL('support/in-deno.ts', import.meta.url));
    const cache = await mkdtemp(join(tmpdir(), 'coatcheck-deno-'));
    onTestFinished(() => rm(cache, { recursive: true, force: true }));
    const flags = ['--no-lock', '--no-remote', '--node-modules-dir=manual', '--allow-net=127.0.0.1', '--allow-env'];
    const { stdout } = await promisify(execFile)(process.execPath, [deno, 'run', ...flags, script], {
      env: {
        PATH: process.env['PATH'],
        DENO_DIR: cache,
        DENO_NO_UPDATE_CHECK: '1',
        UPSTASH_REDIS_REST_URL: bridge.url,
        UPSTASH_REDIS_REST_TOKEN: bridge.token,
      },
    });
    expect(stdout).toMatch(/^[1-9]\d+ passed, 0 failed, in Deno\/2\S+\n$/);
  },
);
