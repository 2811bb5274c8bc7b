import { once } from 'node:events';
import { connect, type AddressInfo } from 'node:net';
import { createServer, type TLSSocket } from 'node:tls';

/** Signed by itself, for the name `redis.test`; it guards nothing. */
export const CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBmTCCAT6gAwIBAgIUYaURfD/FupwehRZK+1rqpHuVMCMwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKcmVkaXMudGVzdDAgFw0yNjExMjIwNzEwNTRaGA8yMTI2MTAy
OTA3MTA1NFowFTETMBEGA1UEAwwKcmVkaXMudGVzdDBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABEugmyP6qM9DBm4GpLwRo6p+1wi9+qPExcHuXKnAVx/r4a1QNm7/
DEKWKYx6p9QuzfpWuwUlGdvKcVHhGUu65IWjajBoMB0GA1UdDgQWBBS++exQeVEd
MHUp4pB0JIWtvb9+WzAfBgNVHSMEGDAWgBS++exQeVEdMHUp4pB0JIWtvb9+WzAP
BgNVHRMBAf8EBTADAQH/MBUGA1UdEQQOMAyCCnJlZGlzLnRlc3QwCgYIKoZIzj0E
AwIDSQAwRgIhAJV/stgQt2QQXOgsSHGi1bFBH1CjWNe0r9S1U53sL388AiEAwc5D
N6GXiL5CURn+ABC9weg88aEKzhwBJ+0pZFWFF0s=
-----END CERTIFICATE-----
`;
const KEY = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgxz2TCZuXrLyP/SpI
wEGGGnP0FxeD1xe5Kl5jV9SFZ8WhRANCAARLoJsj+qjPQwZuBqS8EaOqftcIvfqj
xMXB7lypwFcf6+GtUDZu/wxClimMeqfULs36VrsFJRnbynFR4RlLuuSF
-----END PRIVATE KEY-----
`;

/** Speaks TLS in front of a server on this machine that does not. */
export async function startTls({ target }: { target: number }): Promise<AsyncDisposable & { port: number }> {
  const sockets = new Set<TLSSocket>();
  const server = createServer({ cert: CERTIFICATE, key: KEY }, (client) => {
    const plain = connect(target, '127.0.0.1');
    sockets.add(client);
    client.once('close', () => sockets.delete(client));
    for (const socket of [client, plain]) socket.on('error', () => undefined);
    client.pipe(plain).pipe(client);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      server.close();
      for (const socket of sockets) socket.destroy();
      await once(server, 'close');
    },
  };
}
