import { expect } from 'vitest';
import { createVisitor } from './http.ts';
import type { Site } from './site.ts';

// Scenarios for two servers on one backend.

/** 64 concurrent requests that set 64 keys lose no updates, three times in a row. */
export async function loseNoUpdates(first: Site, second: Site): Promise<void> {
  const names = Array.from({ length: 64 }, (_, index) => `key${index}`);
  for (let round = 0; round < 3; round++) {
    const visitor = createVisitor(first.url);
    await visitor.run([['set', 'seed', round]]);
    await Promise.all(
      names.map((name, index) => visitor.fork((index % 2 ? first : second).url).run([['set', name, index]])),
    );
    const [keys] = await visitor.run([['keys']]);
    expect(new Set(keys as string[])).toEqual(new Set(['seed', ...names]));
  }
}

/** Late requests on one server do not restore a session that was destroyed on the other. */
export async function keepDestroyedSessionsDestroyed(first: Site, second: Site): Promise<void> {
  const visitor = createVisitor(first.url);
  await visitor.run([['set', 'user', 'ada']]);
  const signedIn = visitor.fork();
  const late = Array.from({ length: 8 }, (_, index) =>
    visitor.fork(second.url).attempt([
      ['get', 'user'],
      ['wait', 'late'],
      ['set', `late${index}`, true],
    ]),
  );
  await second.gate('late').arrived(8);
  await visitor.run([['destroy']]);
  await second.gate('late').open();
  for (const { status } of await Promise.all(late)) expect(status).toBe(200);
  expect(await signedIn.run([['keys']])).toEqual([[]]);
  expect(await signedIn.fork(second.url).run([['keys']])).toEqual([[]]);
}
