import type { FromEnv } from './env.ts';
import { boolean, group, type OptionKind, secretString, string } from './option.ts';

/** Options of Node's `tls.connect()`. Certificates and keys are PEM strings, not file names. */
export interface TlsOptions {
  /**
   * The certificate authority to trust, instead of those that Node trusts.
   *
   * @default the certificate authorities that Node trusts
   */
  ca?: FromEnv<string>;
  /** The client certificate, for a backend that requires one. Needs `key`. */
  cert?: FromEnv<string>;
  /** The private key of `cert`. */
  key?: FromEnv<string>;
  /**
   * The name that the server's certificate must be issued for.
   *
   * @default the host
   */
  servername?: FromEnv<string>;
  /**
   * Whether to reject invalid certificates. `false` accepts any certificate, so it does not protect against an attacker in the middle.
   *
   * @default true
   */
  rejectUnauthorized?: FromEnv<boolean>;
}

const parts = /* @__PURE__ */ group<TlsOptions>({
  ca: string,
  cert: string,
  key: secretString,
  servername: string,
  rejectUnauthorized: boolean,
});

/** Whether to use TLS, or its options. */
export const tls: OptionKind<boolean | TlsOptions> = {
  read: (raw) => (typeof raw === 'object' && raw !== null ? parts.read(raw) : boolean.read(raw)),
  holdsSecret: (value) => typeof value === 'object' && value.key !== undefined,
};
