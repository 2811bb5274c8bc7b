/**
 * The command of an SQL driver: prints the SQL that creates its table, for migrations of the user. Its argument is the name of the table. A
 * wrong one ends the process with the status 1.
 *
 * @param driver the driver's name, which is also that of its package.
 */
export function printTableSql(driver: string, createTableSql: (table?: string) => string): void {
  const [table, ...more] = process.argv.slice(2);
  try {
    if (more.length > 0 || table?.startsWith('-')) throw new Error('expected one argument, the name of the table');
    process.stdout.write(createTableSql(table));
  } catch (error) {
    console.error(`${(error as Error).message}\nUsage: npx @coatcheck/${driver} [table]`);
    process.exitCode = 1;
  }
}
