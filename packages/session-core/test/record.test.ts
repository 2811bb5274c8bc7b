import { describe, expect, it } from 'vitest';
import { encrypted } from '../src/codec/encrypted.ts';
import { type FieldCodecs, plaintext } from '../src/codec/field-codec.ts';
import { recordIn, toRecord, type SessionChange } from '../src/engine/record.ts';
import { createShelf, rightStore } from './support/right-store.ts';

const NOW = 1_000_000;
const HOUR = 3_600_000;

const fields = (entries: Record<string, string>) => new Map(Object.entries(entries));
const lifetimeOf = (change: SessionChange, ttlMs: number | undefined = HOUR) =>
  toRecord(change, { ttlMs, idleMs: undefined }, [plaintext], plaintext, NOW).lifetimeMs;

describe('how long a record lives after a change', () => {
  it.each<[what: string, change: SessionChange, expected: number | 'never']>([
    ['the default ttl, for a field without an expiry', { set: fields({ a: ':1' }) }, HOUR],
    ['the time of its only field', { set: fields({ a: `${NOW + 5}:1` }) }, 5],
    ['as long as the field that lives longest', { set: fields({ a: `${NOW + 5}:1`, b: ':1' }) }, HOUR],
    [
      'as long as a field that the change leaves alone',
      { set: fields({ a: `${NOW + 5}:1` }), untouched: [NOW + 9] },
      9,
    ],
    ['as long as a field that it restores', { set: fields({}), ifAbsent: fields({ a: `${NOW + 7}:1` }) }, 7],
    ['the default ttl, when it has no field at all', { set: fields({}) }, HOUR],
    ['no time, when all of its fields have expired', { set: fields({}), untouched: [NOW - 5] }, 0],
  ])('%s', (_what, change, expected) => {
    expect(lifetimeOf(change)).toBe(expected);
  });

  it('without a default ttl: for good with a field that does not expire, and 30 days with no field', () => {
    const policy = { ttlMs: undefined, idleMs: undefined };
    expect(toRecord({ set: fields({ a: ':1' }) }, policy).lifetimeMs).toBe('never');
    expect(toRecord({ set: fields({}) }, policy).lifetimeMs).toBe(30 * 24 * HOUR);
  });
});

describe('a change of a session as a change of its record', () => {
  const policy = { ttlMs: HOUR, idleMs: 5 };

  it('removes a field that has expired before it is set', () => {
    const { set, unset } = toRecord({ set: fields({ a: `${NOW - 1}:1` }) }, policy, [plaintext], plaintext, NOW);
    expect([...set.keys(), ...unset]).toEqual([plaintext.name('a')]);
    expect(set.size).toBe(0);
  });

  it('writes with the first codec, and removes what the others wrote under the same key', () => {
    const codecs: FieldCodecs = [encrypted('next', 'key'), encrypted('old', 'key'), plaintext];
    const { set, unset, purge } = toRecord({ set: fields({ a: ':1' }), purge: ['b'] }, policy, codecs);
    expect([...set]).toEqual([[codecs[0].name('a'), codecs[0].value('a', ':1')]]);
    expect(unset).toEqual(codecs.slice(1).map((codec) => codec.name('a')));
    expect(purge).toEqual(codecs.map((codec) => codec.name('b')));
  });

  it('expects a field in one codec only, and its absence in all', () => {
    const codecs: FieldCodecs = [encrypted('next', 'key'), plaintext];
    const expect_ = new Map([
      ['a', ':1'],
      ['b', null],
    ]);
    const change = toRecord({ set: fields({}), expect: expect_ }, policy, codecs, plaintext);
    expect(change.expect).toEqual(
      new Map([
        [codecs[0].name('a'), null],
        [plaintext.name('a'), ':1'],
        [codecs[0].name('b'), null],
        [plaintext.name('b'), null],
      ]),
    );
  });
});

describe('a record', () => {
  const open = (codecs: FieldCodecs, shelf = createShelf()) => {
    const corrupt: string[] = [];
    const record = recordIn({
      store: rightStore(shelf),
      call: { signal: new AbortController().signal },
      key: 'key',
      codecs,
      expiry: { ttlMs: HOUR, idleMs: undefined },
      onCorrupt: () => void corrupt.push('corrupt'),
    });
    return { record, shelf, corrupt };
  };
  const next = encrypted('next', 'key');

  it('finds the value that `update` expects in whichever codec wrote it', async () => {
    const { record, shelf } = open([plaintext]);
    await record.patch({ set: fields({ a: ':1' }) });
    const both = open([next, plaintext], shelf).record;
    const change = { set: fields({ a: ':2' }), expect: fields({ a: ':1' }) };
    expect(await both.patch(change)).toBe('applied');
    expect(await both.patch(change)).toBe('conflict');
  });

  it('is written with the first codec as soon as it is read', async () => {
    const { record, shelf } = open([plaintext]);
    await record.patch({ set: fields({ a: ':1' }) });
    await open([next, plaintext], shelf).record.read();
    const { record: after, corrupt } = open([next], shelf);
    expect([...(await after.read())!]).toEqual([['a', ':1']]);
    expect(corrupt).toEqual([]);
  });

  it('is what it last held when it is destroyed, and refuses changes after that', async () => {
    const { record } = open([next]);
    await record.patch({ set: fields({ a: ':1' }) });
    const held = await record.destroy();
    expect([...(held as Map<string, string>)]).toEqual([['a', ':1']]);
    expect(await record.destroy()).toBe('destroyed');
    expect(await record.patch({ set: fields({ a: ':1' }) })).toBe('destroyed');
    expect(await record.read()).toBeNull();
  });
});
