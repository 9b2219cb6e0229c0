-- The placing holds that are past due: SQL must say what became of them.
-- Guarantees: changes nothing.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, how many at most.
-- Returns: msgpack [word, now, [[hold, ledger sequence its gate stands on]]]; word ok | shut
--   | lost, which says that a key of the partition is gone.
-- Emits: nothing.
-- part: stock_begin
if not open then
  return cmsgpack.pack({'shut', now})
end
-- part: stock_rows
-- part: stock_gates
local stuck = {}
for i, id in ipairs(redis.call('ZRANGEBYSCORE', placing_key, '-inf', now, 'LIMIT', 0, ARGV[3])) do
  local packed = redis.call('HGET', holds_key, id)
  local h = packed and cmsgpack.unpack(packed)
  local g = h and gate(h[POOL])
  if not g then
    return cmsgpack.pack({'lost', now})
  end
  stuck[i] = {h, g.seq}
end
return cmsgpack.pack({'ok', now, stuck})
