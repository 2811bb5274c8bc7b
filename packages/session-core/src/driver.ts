export { defineDriver } from './astro/define-driver.ts';
export { expiryOf, isCounted } from './codec/field.ts';
export { endOf, packRecord, type StoredRecord, unpackRecord } from './codec/packed-record.ts';
export { driverConfig } from './config/driver-config.ts';
export { type EnvRef, type FromEnv, fromEnv, type ReadEnv } from './config/env.ts';
export {
  type MigrateFrom,
  boolean,
  group,
  list,
  objectWith,
  picklist,
  type OptionKind,
  type OptionKinds,
  orFalse,
  type Resolved,
  seconds,
  secretString,
  token,
  type SharedOptions,
  string,
  integer,
} from './config/option.ts';
export { binding, type BindingKind, missingBinding } from './config/binding.ts';
export { missingVariable, readVariable } from './config/resolve.ts';
export { tls, type TlsOptions } from './config/tls.ts';
export { parseUrl } from './config/url.ts';
export { report, type ReportedEvent } from './contract/diagnostics.ts';
export type { SessionDriver, SessionDriverConfig } from './contract/driver.ts';
export {
  createError,
  isSessionDriverError,
  type SessionDriverError,
  type SessionErrorCode,
} from './contract/errors.ts';
export { type DriverStore, legacyKey, type LegacySessions } from './contract/legacy.ts';
export {
  type Change,
  type Fields,
  type Lifetime,
  type PatchResult,
  type SessionStore,
  type StoreCall,
} from './contract/store.ts';
export type { DriverDefinition, Host, OpenContext } from './engine/backend.ts';
export { sweep } from './engine/engine-of.ts';
export { recordKey, sha256Of } from './engine/session-id.ts';
export { msSince, thisMoment, type Moment } from './platform/clock.ts';
export { pause, retry } from './platform/retry.ts';
export { applyChange } from './stores/apply-patch.ts';
export { legacyFiles } from './stores/legacy-files.ts';
export { sqlKinds, type SqlOptions } from './stores/sql/options.ts';
export { type ErrorRule, explainBy, type Failure, interrupted, TLS_ERROR } from './stores/error-rules.ts';
export { createTombstones, type Tombstones } from './stores/tombstones.ts';
export type { RecordCodec, StoredValue, ValueBackend } from './stores/value-layout.ts';
export { valueStore } from './stores/value-store.ts';
