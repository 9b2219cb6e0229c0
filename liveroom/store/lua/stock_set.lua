-- Set what a gate asks of a request: price, limit and phase. Never what it has.
-- Guarantees: a pool without a gate is left alone; only what is given changes;
--   a phase only goes up, so that word of an earlier one, come late, opens nothing again.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, settings: msgpack of [{pool, price?, limit? (0: none), phase?}].
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
    if new.phase and new.phase > (g.phase or 0) then
      g.phase = new.phase
    end
  end
end
save_gates()
return cmsgpack.pack({'ok', now})
