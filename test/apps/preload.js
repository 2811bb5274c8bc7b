// Runs before a site's own code, by `node --import`.

// The site ends with the test that started it, however that ends.
process.stdin
  .on('close', () => process.exit())
  .resume()
  .unref();

// The clock of this process alone can be wrong by so much. Timers are not affected, nor is `performance`.
const offset = Number(process.env.TEST_CLOCK_OFFSET_MS ?? 0);
if (offset !== 0) {
  const RealDate = Date;
  const realNow = Date.now;
  const now = () => realNow() + offset;
  globalThis.Date = new Proxy(RealDate, {
    construct: (target, args, newTarget) => Reflect.construct(target, args.length > 0 ? args : [now()], newTarget),
    apply: () => new RealDate(now()).toString(),
    get: (target, key, receiver) => (key === 'now' ? now : Reflect.get(target, key, receiver)),
  });
  RealDate.prototype.constructor = Date;
}
