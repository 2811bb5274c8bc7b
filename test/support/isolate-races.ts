import { expect } from 'vitest';
import { createVisitor, type Visitor } from './http.ts';

// Races of requests in the isolates of a Worker. They have no gates, because requests in workerd cannot wait for each other.

/**
 * 64 concurrent requests on one session. Each reads it, waits, and sets its own key. Resolves to the number of keys that were kept.
 *
 * @param urls where the requests go, in turn.
 */
export async function keptOf64(urls: string[]): Promise<number> {
  const visitor = createVisitor(urls[0]!);
  await visitor.run([['set', 'user', 'ada']]);
  const answers = await Promise.all(
    Array.from({ length: 64 }, (_, index) =>
      at(urls, visitor, index).run([
        ['get', 'user'],
        ['jitter', 100],
        ['set', `key${index}`, index],
      ]),
    ),
  );
  expect(answers.map(([user]) => user)).toEqual(Array.from({ length: 64 }, () => 'ada'));
  const [keys] = (await visitor.run([['keys']])) as [string[]];
  expect(keys).toContain('user');
  return keys.length - 1;
}

/** A session that is destroyed during concurrent writes stays destroyed, in every isolate. */
export async function isNotRestored(urls: string[]): Promise<void> {
  for (let round = 0; round < 5; round++) {
    const visitor = createVisitor(urls[0]!);
    await visitor.run([['set', 'user', 'ada']]);
    const writing = Array.from({ length: 8 }, (_, index) =>
      at(urls, visitor, index).attempt([
        ['get', 'user'],
        ['jitter', 100],
        ['set', `key${index}`, index],
      ]),
    );
    const gone = visitor.fork();
    await visitor.run([['jitter', 100], ['destroy']]);
    expect((await Promise.all(writing)).map(({ status }) => status)).toEqual(Array.from({ length: 8 }, () => 200));
    for (const url of urls) expect(await gone.fork(url).run([['get', 'user'], ['keys']])).toEqual([undefined, []]);
  }
}

function at(urls: string[], visitor: Visitor, index: number): Visitor {
  return visitor.fork(urls[index % urls.length]);
}
