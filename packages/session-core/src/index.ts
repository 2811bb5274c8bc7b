export { check, type Check, type CheckStep } from './check.ts';
export { defineDriver, sweep } from './define-driver.ts';
export type { DriverDefinition, Host, OpenContext } from './engine.ts';
export { fromEnv, type EnvRef, type FromEnv, type ReadEnv } from './env.ts';
export { createError, isSessionDriverError, type SessionDriverError, type SessionErrorCode } from './errors.ts';
export { expiryOf } from './fields.ts';
export { recordKey, sha256Of } from './ids.ts';
export {
  driverConfig,
  flag,
  group,
  list,
  missingVariable,
  oneOf,
  orFalse,
  seconds,
  secretText,
  text,
  whole,
  type OptionKind,
  type Adopt,
  type OptionKinds,
  type Resolved,
  type SharedOptions,
} from './options.ts';
export { pause } from './pause.ts';
export { applyChange, endOf, packRecord, unpackRecord, type StoredRecord } from './record.ts';
export { report, type ReportedEvent, type TraceableOperation, type TracedOperation } from './report.ts';
export type { Change, Fields, FormerSessions, Lifetime, PatchResult, SessionStore, StoreCall } from './store.ts';
export { formerKey } from './store.ts';
export type { SessionDriver, SessionDriverConfig } from './types.ts';
export { createSessions, type Session, type Sessions, type SessionsOptions, type SetOptions } from './session.ts';
export type { SessionCookie } from './cookie.ts';
export { createTombstones, type Tombstones } from './tombstones.ts';
export { valueStore, type RecordCodec, type StoredValue, type ValueBackend } from './values.ts';
