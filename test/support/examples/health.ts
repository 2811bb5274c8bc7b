import { check } from '@coatcheck/session-redis';
import redis from '@coatcheck/session-redis/runtime';

const driver = redis();

export async function GET(): Promise<Response> {
  const { ok, steps } = await check(driver);
  return Response.json(
    { ok, steps: steps.map(({ name, ms, error }) => ({ name, ms, error: error?.message })) },
    { status: ok ? 200 : 503 },
  );
}
