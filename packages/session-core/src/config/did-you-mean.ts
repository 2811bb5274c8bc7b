import leven from 'leven';

/** The maximum edit distance at which a name counts as a typo of another one. */
const MAX_TYPO_DISTANCE = 2;

/**
 * The error message for the first unknown option, with a suggestion if it looks like a typo; undefined when all options are known.
 *
 * @param prefix is put before each name in the message, such as `cookie.`
 */
export function unknownOption(given: object, known: readonly string[], prefix = ''): string | undefined {
  const name = Object.keys(given).find((key) => !known.includes(key));
  if (name === undefined) return undefined;
  const distance = (other: string): number => leven(name.toLowerCase(), other.toLowerCase());
  const [nearest] = known.toSorted((one, other) => distance(one) - distance(other));
  const isTypo = nearest !== undefined && distance(nearest) <= Math.min(MAX_TYPO_DISTANCE, name.length / 2);
  const suggestion = isTypo ? ` Did you mean \`${prefix}${nearest}\`?` : '';
  return `\`${prefix}${name}\` is not an option.${suggestion} Options: ${known.join(', ')}`;
}
