import type { LegacySessions } from '../contract/legacy.ts';

/**
 * Legacy sessions of Astro's default driver: one file per session, named by the session id, in the folder `base`.
 *
 * @param driverName the driver that migrates them, for errors.
 */
export function legacyFiles(driverName: string): LegacySessions {
  // Loaded late, because few sites migrate, and only for some time.
  const late = () => import('./legacy-disk.ts');
  return {
    read: async (id, base) => (await late()).read(driverName, id, base),
    remove: async (id, base) => (await late()).remove(driverName, id, base),
  };
}
