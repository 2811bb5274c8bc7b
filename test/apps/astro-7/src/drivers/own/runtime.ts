import redis from '@coatcheck/session-redis/runtime';
import { getSecret } from 'astro:env/server';

export default () => redis({ url: getSecret('REDIS_URL') });
