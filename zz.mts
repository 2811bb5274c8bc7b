import { DatabaseSync } from 'node:sqlite';
import { mkdtempSync } from 'node:fs';
import { openStore } from './packages/session-sqlite/src/store.ts';
import { unpackFields, packFields } from './packages/session-core/src/stores/sql/fields.ts';
import { packRecord, unpackRecord } from './packages/session-core/src/codec/packed-record.ts';
const typical = new Map([
  ['user', `:${JSON.stringify([{ id: 1 }, 4711, 'x'.repeat(80)])}`],
  ['cart', `:${JSON.stringify(Array.from({ length: 10 }, (_, line) => `line ${line} ${'x'.repeat(100)}`))}`],
  ['flash', `:["Your changes were saved."]`],
  ['token', `:["${'x'.repeat(36)}"]`],
]);
const file = mkdtempSync('/tmp/zz-') + '/a.db';
const call = () => ({ signal: new AbortController().signal });
const store = await openStore({ file } as never, { timeoutMs: 60000 });
const ch = () => ({ set: typical, unset: [], lifetimeMs: 3600000, defaultTtlMs: 3600000, now: Date.now() });
for (let i = 0; i < 1000; i++) await store.patch('k' + i, ch(), call());
const db = new DatabaseSync(file);
const read = db.prepare('SELECT fields FROM coatcheck_sessions WHERE key = ? AND until > ? AND fields IS NOT NULL');
const json = packFields(typical),
  rec = packRecord({ fields: typical, expires: 1, idleUntil: 2 } as never);
let n = 0;
const bench = async (name: string, f: () => unknown, sync = false) => {
  const res = [];
  for (let r = 0; r < 9; r++) {
    const c = process.cpuUsage();
    for (let i = 0; i < 5000; i++) {
      if (sync) f();
      else await f();
    }
    const d = process.cpuUsage(c);
    res.push((d.user + d.system) / 5000);
  }
  res.sort((a, b) => a - b);
  console.log(name, res[2]!.toFixed(2), 'µs');
};
await bench('bare read', () => read.get('k' + (n++ % 1000), Date.now()), true);
await bench('store.read', () => store.read('k' + (n++ % 1000), call()));
await bench(
  'store.read same signal',
  (
    (c) => () =>
      store.read('k' + (n++ % 1000), c)
  )(call()),
);
await bench('unpackFields', () => unpackFields(json), true);
await bench('JSON.parse', () => JSON.parse(json), true);
await bench('packFields', () => packFields(typical), true);
await bench('unpackRecord', () => unpackRecord(rec), true);
await bench('packRecord', () => packRecord({ fields: typical, expires: 1, idleUntil: 2 } as never), true);
await bench('signal', () => call(), true);
await bench('store.patch', () =>
  store.patch('k' + (n++ % 1000), { ...ch(), set: new Map([['flash', ':["' + n + '"]']]) }, call()));
const load = db.prepare('SELECT until, expires, fields FROM coatcheck_sessions WHERE key = ? AND until > ?'),
  save = db.prepare(
    `INSERT INTO coatcheck_sessions (key, until, expires, fields, bucket) VALUES (?, ?, ?, ?, 1) ON CONFLICT (key) DO UPDATE SET until = excluded.until, expires = excluded.expires, fields = excluded.fields`,
  );
db.exec('PRAGMA synchronous = NORMAL');
const bare = () => {
  const key = 'k' + (n++ % 1000),
    until = Date.now() + 3600000;
  db.exec('BEGIN IMMEDIATE');
  const row = load.get(key, Date.now()) as any;
  save.run(key, until, until, row.fields);
  db.exec('COMMIT');
};
await bench('bare patch', bare, true);
db.exec('DROP INDEX coatcheck_sessions_bucket');
await bench('bare patch no index', bare, true);
await bench(
  'raw mode',
  ((r) => {
    (r as any).setReturnArrays?.(true);
    return () => r.get('k' + (n++ % 1000), Date.now());
  })(db.prepare('SELECT fields FROM coatcheck_sessions WHERE key = ? AND until > ? AND fields IS NOT NULL')),
  true,
);
