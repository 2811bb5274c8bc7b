import leven from 'leven';

/** So many letters may be wrong before a name is taken for another one. */
const MOST_WRONG = 2;

/**
 * What is wrong with the first option that does not exist, and which one was meant; undefined when all exist.
 *
 * @param prefix stands before names in what is said, such as `cookie.`
 */
export function unknownOption(given: object, known: readonly string[], prefix = ''): string | undefined {
  const name = Object.keys(given).find((it) => !known.includes(it));
  if (name === undefined) return undefined;
  const distance = (other: string): number => leven(name.toLowerCase(), other.toLowerCase());
  const [nearest] = known.toSorted((one, other) => distance(one) - distance(other));
  const isTypo = nearest !== undefined && distance(nearest) <= Math.min(MOST_WRONG, name.length / 2);
  const meant = isTypo ? ` Did you mean \`${prefix}${nearest}\`?` : '';
  return `\`${prefix}${name}\` is not an option.${meant} Options: ${known.join(', ')}`;
}
