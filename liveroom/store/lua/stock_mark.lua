-- Mark a planned stop: no hold is made or placed after it.
-- Guarantees: marks only an open fence; takes away only the mark that is named.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, mark, 1 to set it, 0 to take it away again.
-- Returns: msgpack [word, now]; word ok | shut.
-- Emits: nothing.
-- part: stock_begin
if not open then
  return cmsgpack.pack({'shut', now})
end
if ARGV[4] == '1' then
  redis.call('HSET', fence_key, 'mark', ARGV[3])
elseif marked == ARGV[3] then
  redis.call('HDEL', fence_key, 'mark')
end
return cmsgpack.pack({'ok', now})
