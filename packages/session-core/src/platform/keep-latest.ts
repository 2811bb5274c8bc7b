/** Sets a key of a map. If the map then has more than `limit` keys, the one that was set first is removed. */
export function keepLatest<Value>(map: Map<string, Value>, key: string, value: Value, limit: number): void {
  map.delete(key);
  map.set(key, value);
  if (map.size > limit) map.delete(map.keys().next().value!);
}
