import { createError, type StoredValue } from '@coatcheck/session-core/driver';
import type { Store } from '@netlify/blobs';
import { DRIVER } from './options.ts';

/**
 * Reads a blob whose version is only in lists, as on Netlify's development server. It requests the list before the value: a version that
 * is older than its value only makes a write fail, but a newer one would overwrite a change.
 */
export async function getWithListedVersion(store: Store, name: string): Promise<StoredValue | null> {
  // A list can miss a blob while another blob is written.
  for (let attempt = 0; attempt < 20; attempt++) {
    const { blobs } = await store.list({ prefix: name });
    const etag = blobs.find(({ key }) => key === name)?.etag;
    const value = await store.get(name, { type: 'text' });
    if (value === null) return null;
    if (etag) return { value, version: etag };
  }
  throw createError(
    DRIVER,
    'refused',
    'Netlify Blobs returns no ETag for a session. Without it, concurrent changes could not be detected.',
  );
}
