import { execFileSync } from 'node:child_process';
import { appendFileSync, globSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

// Puts another Astro, and what goes with it, where the workspace has Astro 7: `node scripts/astro-next.ts beta`. Changes manifests and the
// lock file, and tells the workflow that runs it the version, if there is one.

const workspace = fileURLToPath(new URL('../', import.meta.url));
const [tag = 'latest'] = process.argv.slice(2);

const version = tagged('astro');
if (version) {
  for (const path of globSync('{,packages/*/,examples/*/,test/apps/*/,test/support/,bench/}package.json', {
    cwd: workspace,
  })) {
    const file = join(workspace, path);
    const text = readFileSync(file, 'utf8');
    const next = text.replaceAll(/(?<="astro(?:-7)?": "(?:npm:astro@)?)[~^]7[^"]*/g, version);
    if (next === text) continue;
    writeFileSync(
      file,
      next.replaceAll(/(?<="(@astrojs\/\w+)": ")[^"]*/g, (_, name: string) => tagged(name) ?? 'latest'),
    );
    console.log(`${path} has astro ${version}`);
  }
  // What is tested is what came out just now.
  const env = { ...process.env, PNPM_CONFIG_MINIMUM_RELEASE_AGE: '0' };
  execFileSync('pnpm', ['install', '--no-frozen-lockfile'], { cwd: workspace, env, stdio: 'inherit' });
  if (process.env['GITHUB_OUTPUT']) appendFileSync(process.env['GITHUB_OUTPUT'], `version=${version}\n`);
} else {
  console.log(`There is no astro@${tag} now.`);
}

function tagged(name: string): string | undefined {
  const tags = execFileSync('pnpm', ['view', name, 'dist-tags', '--json'], { cwd: workspace, encoding: 'utf8' });
  return (JSON.parse(tags) as Record<string, string>)[tag];
}
