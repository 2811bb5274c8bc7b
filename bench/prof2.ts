import memory from '@coatcheck/session-memory/runtime';
import { sha256Of } from '@coatcheck/session-core/driver';
import { astroWithOurs, visitorOf } from './subjects.ts';
import { pages } from './pages.ts';
const d = memory();
const visit = astroWithOurs(d);
const req = await visitorOf(visit, pages.login);
const id = /astro-session=([^;]+)/.exec(req.headers.get('cookie')!)![1]!;
const engine = (d as any)[Symbol.for('@coatcheck/session-core/engine@1')];
async function time(name: string, n: number, f: (i: number) => any) {
  for (let i = 0; i < n / 4; i++) await f(i);
  const t0 = process.cpuUsage();
  for (let i = 0; i < n; i++) await f(i);
  const c = process.cpuUsage(t0);
  console.log(name.padEnd(30), ((c.user + c.system) / n).toFixed(2));
}
await time('sha256', 200000, () => sha256Of(id));
await time('engine.read', 100000, () => engine.read(id));
await time('driver.getItem', 100000, () => d.getItem(id));
const set = new Map([['flash', ':["x"]']]);
await time('engine.patch', 100000, () =>
  engine.patch(id, { set, unset: [], purge: [], untouched: [undefined, undefined, undefined], mustExist: true }),
);
const { unflatten, stringify } = await import('devalue');
const reducers = { URL: (v: unknown) => v instanceof URL && v.href };
const data: any = unflatten((await d.getItem(id)) as any);
await time('unflatten', 50000, async () => unflatten((await d.getItem(id)) as any));
await time('stringify', 30000, () => stringify(data, reducers));
const payload = stringify(data, reducers);
await time('JSON.parse', 50000, () => JSON.parse(payload));
await time('driver.setItem unchanged', 50000, () => d.setItem(id, payload));
let n = 0;
await time('driver.setItem changed', 50000, () => {
  const m: any = new Map(data);
  m.set('flash', { data: 'x' + ++n, expires: undefined });
  return d.setItem(id, stringify(m, reducers));
});
