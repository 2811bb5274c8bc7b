export { type EnvRef, fromEnv } from './config/env.ts';
export type { MigrateFrom, SharedOptions } from './config/option.ts';
export type { ReportedEvent, TraceableOperation, TracedOperation } from './contract/diagnostics.ts';
export type { SessionDriver, SessionDriverConfig } from './contract/driver.ts';
export { isSessionDriverError, type SessionDriverError, type SessionErrorCode } from './contract/errors.ts';
export { check, type Check, type CheckStep } from './engine/check.ts';
export { sweep } from './engine/engine-of.ts';
export type { SessionCookie } from './session/cookie.ts';
export {
  createSessions,
  type Session,
  type Sessions,
  type SessionsOptions,
  type SetOptions,
} from './session/session.ts';
