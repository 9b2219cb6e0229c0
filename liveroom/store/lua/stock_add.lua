-- Make the gates of pools that are newer than the fence.
-- Guarantees: a gate that is there is left alone; nothing is made where the gates' key is gone.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, gates: msgpack of [{pool, base, seq, price, price_v?, limit?, phase?}].
-- Returns: msgpack [word, now]; word ok | shut | lost.
-- Emits: [[pool, left, v]] on the channel, once, for the gates made.
-- part: stock_begin
if not open then
  return cmsgpack.pack({'shut', now})
end
if redis.call('HEXISTS', gates_key, '#') == 0 then
  return cmsgpack.pack({'lost', now})
end
-- part: stock_gates
for _, new in ipairs(cmsgpack.unpack(ARGV[3])) do
  if not gate(new.pool) then
    gates[new.pool] = {base = new.base, seq = new.seq, held = 0, n = 0, price = new.price,
      price_v = new.price_v, limit = new.limit, phase = new.phase}
  end
end
save_gates()
return cmsgpack.pack({'ok', now})
