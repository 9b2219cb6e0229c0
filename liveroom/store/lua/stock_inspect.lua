-- Everything the audit compares with SQL, at one instant.
-- Guarantees: changes nothing.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel.
-- Returns: msgpack [word, now, {pool: gate}, [hold], [id in the expiry sets], open holds];
--   word ok | shut.
-- Emits: nothing.
-- part: stock_begin
if not open then
  return cmsgpack.pack({'shut', now})
end
local gates, holds, ids = {}, {}, redis.call('ZRANGE', due_key, 0, -1)
local fields = redis.call('HGETALL', gates_key)
for i = 1, #fields, 2 do
  if fields[i] ~= '#' then
    gates[fields[i]] = cmsgpack.unpack(fields[i + 1])
  end
end
for i, packed in ipairs(redis.call('HVALS', holds_key)) do
  holds[i] = cmsgpack.unpack(packed)
end
for _, id in ipairs(redis.call('ZRANGE', placing_key, 0, -1)) do
  ids[#ids + 1] = id
end
return cmsgpack.pack({'ok', now, gates, holds, ids, tonumber(redis.call('HGET', gates_key, '#'))})
