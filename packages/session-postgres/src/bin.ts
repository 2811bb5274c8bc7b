#!/usr/bin/env node
import { printTableSql } from '@coatcheck/session-core/sql';
import { DRIVER } from './options.ts';
import { createTableSql } from './table.ts';

printTableSql(DRIVER, createTableSql);
