-- Everything the audit compares with SQL, at one instant.
-- Guarantees: changes nothing.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel.
-- Returns: [msgpack [ok, now, open holds], gates as [pool, msgpack, ...], [msgpack of a hold],
--   ids due, ids placing], as Redis has them: packing them here again would keep others waiting;
--   or [msgpack [shut, now]].
-- Emits: nothing.
-- part: stock_begin
if not open then
  return {cmsgpack.pack({'shut', now})}
end
return {
  cmsgpack.pack({'ok', now, tonumber(redis.call('HGET', gates_key, '#'))}),
  redis.call('HGETALL', gates_key),
  redis.call('HVALS', holds_key),
  redis.call('ZRANGE', due_key, 0, -1),
  redis.call('ZRANGE', placing_key, 0, -1),
}
