import netlify from '@astrojs/netlify';
import { fromEnv, netlifyBlobsDriver } from '@coatcheck/session-netlify-blobs';
import netlifyBlobs from '@coatcheck/session-netlify-blobs/runtime';
import { defineConfig } from 'astro/config';

// The configurations of users compile, with the adapter that they use.

defineConfig({ output: 'server', adapter: netlify(), session: { driver: netlifyBlobsDriver() } });
defineConfig({ session: { driver: netlifyBlobsDriver({ deployScoped: true }), ttl: 3600 } });

netlifyBlobsDriver({ siteID: fromEnv('NETLIFY_SITE_ID'), token: process.env.NETLIFY_AUTH_TOKEN });
netlifyBlobs({ name: 'visitors', timeout: 25_000 });

// @ts-expect-error a store has a name
netlifyBlobsDriver({ name: 1 });
// @ts-expect-error there is no such option: reads are always consistent
netlifyBlobs({ consistency: 'eventual' });
