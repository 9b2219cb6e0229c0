-- Open a fence epoch whose gates are written: from here on it sells.
-- Guarantees: opens only what is whole, only once, and never an epoch older than the fence's.
-- Keys: the fence and the stock keys of the new epoch (keys.stock).
-- Arguments: epoch, channel, how many gates there must be, how many counts.
-- Returns: msgpack [word, now]; word ok | shut.
-- Emits: [[pool, left, v]] on the channel, once, for all gates.
-- part: stock_begin
local gates_count, counts_count = tonumber(ARGV[3]), tonumber(ARGV[4])
local stale = fence[1] and tonumber(fence[1]) >= epoch
local whole = redis.call('HLEN', gates_key) == gates_count + 1
  and redis.call('HLEN', taken_key) == counts_count
if stale or not whole then
  return cmsgpack.pack({'shut', now})
end
-- part: stock_gates
local told = {}
local fields = redis.call('HGETALL', gates_key)
for i = 1, #fields, 2 do
  if fields[i] ~= '#' then
    told[#told + 1] = {fields[i], left_of(cmsgpack.unpack(fields[i + 1])), epoch * 4294967296}
  end
end
redis.call('HDEL', fence_key, 'mark')
redis.call('HSET', fence_key, 'epoch', string.format('%.0f', epoch), 'run', run)
if #told > 0 then
  redis.call('SPUBLISH', channel, cmsgpack.pack(told))
end
return cmsgpack.pack({'ok', now})
