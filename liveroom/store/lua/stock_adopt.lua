-- Go on under a new run id with what a planned stop left.
-- Guarantees: only with the stop's own mark and epoch, and only once.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, mark.
-- Returns: msgpack [word, now]; word ok | shut.
-- Emits: nothing.
-- part: stock_begin
if tonumber(fence[1]) ~= epoch or fence[3] ~= ARGV[3] then
  return cmsgpack.pack({'shut', now})
end
redis.call('HSET', fence_key, 'run', run)
redis.call('HDEL', fence_key, 'mark')
return cmsgpack.pack({'ok', now})
