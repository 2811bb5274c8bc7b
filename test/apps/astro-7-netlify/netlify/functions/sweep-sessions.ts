import { sweep } from '@coatcheck/session-netlify-blobs';
import netlifyBlobs from '@coatcheck/session-netlify-blobs/runtime';

export default async (): Promise<void> => {
  // Netlify ends a scheduled function after 30 seconds.
  const driver = netlifyBlobs({ timeout: 25_000 });
  console.log(`${await sweep(driver, 100_000)} expired sessions removed`);
};

export const config = { schedule: '@hourly' };
