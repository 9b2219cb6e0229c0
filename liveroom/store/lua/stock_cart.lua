-- What is in a cart: the holds that have not expired and are not being placed.
-- Guarantees: changes nothing.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, cart ("<room>/<buyer>").
-- Returns: msgpack [word, now, holds]; word ok | shut.
-- Emits: nothing.
-- part: stock_begin
if not open then
  return cmsgpack.pack({'shut', now})
end
local holds = {}
local packed = redis.call('HGET', carts_key, ARGV[3])
for _, id in ipairs(packed and cmsgpack.unpack(packed) or {}) do
  local h = cmsgpack.unpack(redis.call('HGET', holds_key, id))
  if h.state == 'held' and h.due > now then
    holds[#holds + 1] = h
  end
end
return cmsgpack.pack({'ok', now, holds})
