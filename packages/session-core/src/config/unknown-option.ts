/**
 * The error message for the first unknown option; undefined when all options are known.
 *
 * @param prefix is put before the name of the option, such as `cookie.`
 */
export function unknownOption(given: object, known: readonly string[], prefix = ''): string | undefined {
  const name = Object.keys(given).find((key) => !known.includes(key));
  return name === undefined ? undefined : `\`${prefix}${name}\` is not an option. Options: ${known.join(', ')}`;
}
