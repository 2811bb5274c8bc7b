export { type BatchDatabase, type BatchErrors, batchStore, type BatchStoreOptions } from './stores/sql/batch-store.ts';
export { printTableSql } from './stores/sql/command.ts';
export { packFields, packName, unpackDestroyed, unpackFields } from './stores/sql/fields.ts';
export { DEFAULT_TABLE, quoteTable } from './stores/sql/options.ts';
export { type BatchOptions, type BatchStatement, type RunBatch, sqliteBatch } from './stores/sql/sqlite-batch.ts';
export {
  BUCKET_MS,
  createSqliteTableSql,
  ignoreMissingTable,
  isTableMissing,
  UNFIT_TABLE,
} from './stores/sql/sqlite-table.ts';
export { FILE_RULES } from './stores/sql/file-rules.ts';
export { sqlStore, type SqlStatements, type SqlStoreOptions } from './stores/sql/store.ts';
