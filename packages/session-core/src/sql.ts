export { type ErrorRule, explainBy, type Failure } from './stores/error-rules.ts';
export { printTableSql } from './stores/sql/command.ts';
export { packFields, packName, unpackDestroyed, unpackFields } from './stores/sql/fields.ts';
export { DEFAULT_TABLE, quoteTable, sqlKinds, type SqlOptions } from './stores/sql/options.ts';
export { sqlStore, type SqlStatements, type SqlStoreOptions } from './stores/sql/store.ts';
