import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pack, run, workspace } from './installed.ts';
import { join } from 'node:path';

/** A package registry on this machine. */
export interface Registry extends AsyncDisposable {
  /** The URL, without a trailing slash. */
  url: string;
}

/**
 * Starts a registry that has packages of this workspace, as they would be published. It redirects requests for all other packages to the
 * registry that npm is configured to use.
 *
 * @param folders the folders of the packages, such as `session-core`.
 * @param into the absolute path of a folder for the tarballs.
 */
export async function startRegistry(folders: readonly string[], into: string): Promise<Registry> {
  const upstream = (await run('npm', ['config', 'get', 'registry'], into)).trim().replace(/\/$/, '');
  const tarballs = new Map<string, Buffer>();
  const manifests = new Map<string, { version: string }>();
  for (const folder of folders) {
    const path = await pack(join(workspace, 'packages', folder), into);
    const manifest = JSON.parse(await run('tar', ['-xzOf', path, 'package/package.json'], into));
    tarballs.set(`/${folder}.tgz`, await readFile(path));
    manifests.set(manifest.name, manifest);
  }

  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url ?? '');
    const tarball = tarballs.get(path);
    if (tarball) return void response.end(tarball);
    const [, name = '', tag] = /^\/(@[^/]+\/[^/]+)(?:\/([^/]+))?$/.exec(path) ?? [];
    const manifest = manifests.get(name);
    if (!manifest) return void response.writeHead(307, { location: upstream + request.url }).end();
    const file = `/${name.split('/')[1]}.tgz`;
    const integrity = `sha512-${createHash('sha512').update(tarballs.get(file)!).digest('base64')}`;
    const published = { ...manifest, dist: { tarball: `http://${request.headers.host}${file}`, integrity } };
    const { version } = manifest;
    const document = { name, 'dist-tags': { latest: version }, versions: { [version]: published } };
    return void response.setHeader('content-type', 'application/json').end(JSON.stringify(tag ? published : document));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}
