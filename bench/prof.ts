import { astro, astroWithOurs, visitorOf, session } from './subjects.ts';
import { pages } from './pages.ts';
import memory from '@coatcheck/session-memory/runtime';
import unstorageMemory from 'unstorage/drivers/memory';
import { createStorage } from 'unstorage';
const [which = 'ours', page = 'read', fill = 'login', count = '60000'] = process.argv.slice(2);
const driver = unstorageMemory();
const visit =
  which === 'ours'
    ? astroWithOurs(memory())
    : which === 'session'
      ? session(memory())
      : astro({
          getItem: (k: string) => storage.get(k),
          setItem: (k: string, v: any) => storage.setItemRaw?.(k, v) ?? storage.setItem(k, v),
          removeItem: (k: string) => storage.removeItem(k),
        } as any);
const storage = createStorage({ driver });
const req = await visitorOf(visit, (pages as any)[fill]);
const p = (pages as any)[page];
for (let i = 0; i < Number(count) / 4; i++) await visit(req, p);
const c0 = process.cpuUsage();
const t0 = performance.now();
for (let i = 0; i < Number(count); i++) await visit(req, p);
const c = process.cpuUsage(c0);
console.log(
  which,
  page,
  fill,
  (((performance.now() - t0) * 1000) / Number(count)).toFixed(1),
  'µs wall',
  ((c.user + c.system) / Number(count)).toFixed(1),
  'cpu',
);
