#!/usr/bin/env node
// Prints the SQL of the table: npx @coatcheck/session-postgres [table]
import { createTableSql } from './table.ts';

try {
  process.stdout.write(createTableSql(process.argv[2]));
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
}
