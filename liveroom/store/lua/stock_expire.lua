-- End the holds of carts whose deadline has passed by this server's clock, and say whether
-- any hold that is being placed is past due (stock_stuck says which).
-- Guarantees: a hold that is being placed never ends here; who lost one is kept on the ended
--   list (at most ENDED_MAX) until a sweep reports it.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, how many holds at most, how many ended holds to report at most.
-- Returns: msgpack [word, now, how many ended, ended holds reported, whether any is past due];
--   word ok | shut | lost, which says that a key of the partition is gone.
-- Emits: [[pool, left, v]] on the channel, once.
-- part: stock_begin
if not open then
  return cmsgpack.pack({'shut', now})
end
-- part: stock_rows
-- part: stock_gates
-- part: stock_holds
-- part: stock_ends
-- part: stock_pack
-- part: stock_save
local ENDED_MAX = 10000
local count, report = tonumber(ARGV[3]), tonumber(ARGV[4])
local holds = redis.call('HLEN', holds_key)
local waiting = redis.call('ZCARD', due_key) + redis.call('ZCARD', placing_key)
if tonumber(redis.call('HGET', gates_key, '#')) ~= holds or waiting ~= holds then
  return cmsgpack.pack({'lost', now})
end
local ids = redis.call('ZRANGEBYSCORE', due_key, '-inf', now, 'LIMIT', 0, count)
read_holds(ids)
for _, id in ipairs(ids) do
  local h = get_hold(id)
  end_hold(h)
  redis.call('RPUSH', ended_key, cmsgpack.pack(h))
end
redis.call('LTRIM', ended_key, -ENDED_MAX, -1)
local reported = {}
if report > 0 then
  for i, packed in ipairs(redis.call('LPOP', ended_key, report) or {}) do
    reported[i] = cmsgpack.unpack(packed)
  end
end
save()
local stuck = redis.call('ZCOUNT', placing_key, '-inf', now) > 0
return cmsgpack.pack({'ok', now, #ids, reported, stuck})
