import { readFileSync } from 'node:fs';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { createSessions } from '@coatcheck/session-core';
import { createBackend, createBrowser } from './support/backend.ts';
import { handle } from './support/examples/api.ts';

// Every code block in the README is the content of a file in `support/`, and a test runs that file.
const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
const blocks = [...readme.matchAll(/^```ts *(.*)\n([^]*?)^```$/gm)].map(([, name, code]) => [name!, code!] as const);

function source(name: string): string {
  return readFileSync(new URL(`support/${name}`, import.meta.url), 'utf8');
}

describe('the README', () => {
  it.each(blocks)('contains the exact code of %s', (name, code) => {
    expect(code).toBe(source(name));
  });

  it.each(blocks.filter(([name]) => /^frameworks\/(?!sessions|app\.d)/.test(name)))(
    '%s has fewer than ten lines without imports',
    (_name, code) => {
      const lines = code.split('\n').filter((line) => line !== '' && !/^(?:import|\/\/)/.test(line));
      expect(lines.length).toBeLessThan(10);
    },
  );

  it('has an example for every framework', () => {
    const names = blocks.map(([name]) => name);
    for (const name of ['hono', 'h3', 'sveltekit', 'astro', 'node']) expect(names).toContain(`frameworks/${name}.ts`);
  });

  it('has a working example for diagnostics', async () => {
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    onTestFinished(() => warn.mockRestore());
    await import('./support/examples/observe.ts');
    const backend = createBackend();
    const browser = createBrowser(createSessions({ driver: backend.driver }));
    await browser.visit((session) => session.set('a', 1));
    const late = browser.open();
    late.set('b', 2);
    await browser.visit((session) => session.destroy());
    await late.commit();
    expect(warn.mock.calls).toEqual([['destroyed-write', { driver: expect.stringContaining('session-test') }]]);
  });

  it('has a working example of a handler', async () => {
    const first = await handle(new Request('https://shop.example/'));
    expect(await first.text()).toBe('Hello stranger, visit 1');
    const [cookie = ''] = first.headers.get('set-cookie')!.split(';');
    const second = await handle(new Request('https://shop.example/', { headers: { cookie } }));
    expect(await second.text()).toBe('Hello stranger, visit 2');
    expect(second.headers.get('set-cookie')).toBeNull();
  });
});
