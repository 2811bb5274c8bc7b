#!/usr/bin/env node
import { createSqliteTableSql, printTableSql } from '@coatcheck/session-core/sql';
import { DRIVER } from './options.ts';

printTableSql(DRIVER, createSqliteTableSql);
