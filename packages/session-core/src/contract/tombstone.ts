/**
 * How long the tombstone of a destroyed session rejects writes, in milliseconds.
 *
 * A record that a request has read can be missing later for two reasons: it was destroyed, or the backend lost it. The request may restore
 * it only in the second case, but the missing record does not show which case it is. So a destroyed session stays destroyed by this rule:
 * **a write that restores a session must reach the backend before any tombstone that was created after the read can have ended.**
 *
 * - If the read found the session, it was destroyed after the read was sent. So its tombstone ends `TOMBSTONE_MS` after the read, or later.
 * - A write reaches the backend at most `timeout` after it began, because nothing is sent after the deadline of an operation.
 * - So a write may restore a session only if it begins less than `TOMBSTONE_MS - timeout` after the read was sent (`mayRestore`).
 *
 * Each writer subtracts its own `timeout`, so drivers with different timeouts can share a backend.
 */
export const TOMBSTONE_MS = 60_000;
