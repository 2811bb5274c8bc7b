#!/usr/bin/env node
// Prints the SQL statements that create the table and its functions, for your own migrations: npx @coatcheck/session-postgres [table]
import { createTableSql } from './table.ts';

const [table, ...more] = process.argv.slice(2);
try {
  if (more.length > 0 || table?.startsWith('-')) throw new Error('expected one argument, the name of the table');
  process.stdout.write(createTableSql(table));
} catch (error) {
  console.error(`${(error as Error).message}\nUsage: npx @coatcheck/session-postgres [table]`);
  process.exitCode = 1;
}
