-- The placing holds that are past due: SQL must say what became of them.
-- Guarantees: changes nothing.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, how many at most.
-- Returns: msgpack [word, now, [[hold, ledger sequence its gate stands on]]]; word ok | shut.
-- Emits: nothing.
-- part: stock_begin
if not open then
  return cmsgpack.pack({'shut', now})
end
-- part: stock_rows
-- part: stock_gates
local stuck = {}
for i, id in ipairs(redis.call('ZRANGEBYSCORE', placing_key, '-inf', now, 'LIMIT', 0, ARGV[3])) do
  local h = cmsgpack.unpack(redis.call('HGET', holds_key, id))
  stuck[i] = {h, gate(h[POOL]).seq}
end
return cmsgpack.pack({'ok', now, stuck})
