-- Set what a gate asks of a request: price and limit. Never what it has.
-- Guarantees: a pool without a gate is left alone; only what is given changes.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, settings: msgpack of [{pool, price?, limit? (0: none)}].
-- Returns: msgpack [word, now]; word ok | shut.
-- Emits: nothing; what is left does not change.
-- part: stock_begin
if not open then
  return cmsgpack.pack({'shut', now})
end
-- part: stock_gates
for _, new in ipairs(cmsgpack.unpack(ARGV[3])) do
  local g = gate(new.pool)
  if g then
    g.price = new.price or g.price
    if new.limit then
      g.limit = new.limit > 0 and new.limit or nil
    end
  end
end
save_gates()
return cmsgpack.pack({'ok', now})
