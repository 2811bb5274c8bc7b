/**
 * For how long a removed session refuses writes.
 *
 * A record can be missing although a request has read it: because it was removed, or because the backend lost it. Only in the second
 * case may the request put it back, and it cannot tell the two apart by the record alone. The rule that keeps removed sessions removed
 * is: **a write that puts a session back reaches the backend before a tombstone that is younger than the read can have ended.**
 *
 * - A removal that the read did not see comes after the read was sent. Its tombstone lasts until `TOMBSTONE_MS` after that at the earliest.
 * - A write reaches the backend at most `timeout` after it was begun: nothing is sent after the deadline of an operation.
 * - So a write that puts back must begin less than `TOMBSTONE_MS - timeout` after the read was sent (`mayRestore`).
 *
 * Each writer subtracts its own `timeout`, so that drivers with different ones can share a backend.
 */
export const TOMBSTONE_MS = 60_000;
