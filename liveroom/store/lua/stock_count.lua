-- Tell what buyers' orders have taken of pools with a limit, as SQL counts it.
-- Guarantees: a count read at an older place of the ledger never replaces a newer one.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, counts: msgpack of [[pool, buyer, seq, units]].
-- Returns: msgpack [word, now]; word ok | shut.
-- Emits: nothing.
-- part: stock_begin
if not open then
  return cmsgpack.pack({'shut', now})
end
for _, count in ipairs(cmsgpack.unpack(ARGV[3])) do
  local field = count[1] .. '/' .. count[2]
  local packed = redis.call('HGET', taken_key, field)
  if not packed or cmsgpack.unpack(packed)[1] < count[3] then
    redis.call('HSET', taken_key, field, cmsgpack.pack({count[3], count[4]}))
  end
end
return cmsgpack.pack({'ok', now})
