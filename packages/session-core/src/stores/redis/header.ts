/**
 * The header of a tombstone.
 *
 * A session is one hash. The field with the empty name is its header; all other fields are the fields of the session. The header is one of:
 *
 *     1:<expiry>:<latest own expiry>:<1 or 0>     a record
 *     1:retired                                   a tombstone
 *
 * Timestamps are epoch milliseconds by Redis's clock. An empty expiry means never. An empty own expiry means that no field has its own
 * expiry. The last part is 1 if there are fields without their own expiry, which live for `defaultTtlMs` after each write. With this
 * header, most patches can compute the new expiry without reading the fields that they do not change.
 */
export const TOMBSTONE = '1:retired';
/** The header of a record. */
export const RECORD: RegExp = /^1:\d*:\d*:[01]$/;
