-- What is left of pools, and where their gates stand in the ledger.
-- Guarantees: changes nothing.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, pools: msgpack of [pool].
-- Returns: msgpack [word, now, gates]; a gate is [left, v, seq, price, limit or 0, phase,
--   waiting] or false where the pool has none; word ok | shut | lost, which says that the gates'
--   key is gone.
-- Emits: nothing.
-- part: stock_begin
if not open then
  return cmsgpack.pack({'shut', now})
end
if redis.call('HEXISTS', gates_key, '#') == 0 then
  return cmsgpack.pack({'lost', now})
end
-- part: stock_gates
local found = {}
for i, pool in ipairs(cmsgpack.unpack(ARGV[3])) do
  local g = gate(pool)
  found[i] = g and {left_of(g), epoch * 4294967296 + g.n, g.seq, g.price, g.limit or 0,
    g.phase or 0, g.waiting or false}
end
return cmsgpack.pack({'ok', now, found})
