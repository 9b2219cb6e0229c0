-- Write a part of the gates of a fence epoch that nobody sells under yet.
-- Guarantees: never touches an epoch that was opened, however late it runs.
-- Keys: the fence and the stock keys of the new epoch (keys.stock).
-- Arguments: epoch, channel,
--   gates: msgpack of [{pool, base, seq, price, price_v?, limit?, phase?, waiting?}],
--   counts: msgpack of [[pool, buyer, seq, units]].
-- Returns: msgpack [word, now]; word ok | shut, where the fence has this epoch or a later one.
-- Emits: nothing.
-- part: stock_begin
if fence[1] and tonumber(fence[1]) >= epoch then
  return cmsgpack.pack({'shut', now})
end
redis.call('HSET', gates_key, '#', 0)
for _, new in ipairs(cmsgpack.unpack(ARGV[3])) do
  redis.call('HSET', gates_key, new.pool, cmsgpack.pack({base = new.base, seq = new.seq, held = 0,
    n = 0, price = new.price, price_v = new.price_v, limit = new.limit,
    phase = new.phase, waiting = new.waiting}))
end
for _, count in ipairs(cmsgpack.unpack(ARGV[4])) do
  redis.call('HSET', taken_key, count[1] .. '/' .. count[2], cmsgpack.pack({count[3], count[4]}))
end
return cmsgpack.pack({'ok', now})
