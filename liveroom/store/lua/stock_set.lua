-- Set what a gate asks of a request: price, limit, phase, whether somebody waits. Never what it
--   has.
-- Guarantees: a pool without a gate is left alone; only what is given changes;
--   a phase only goes up, so that word of an earlier one, come late, opens nothing again;
--   and so does a price's version.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel,
--   settings: msgpack of [{pool, price?, price_v?, limit? (0: none), phase?, waiting?}].
-- Returns: msgpack [word, now]; word ok | shut.
-- Emits: [[pool, left, v]] on the channel, once, where somebody waits now or nobody any more.
-- part: stock_begin
if not open then
  return cmsgpack.pack({'shut', now})
end
-- part: stock_gates
for _, new in ipairs(cmsgpack.unpack(ARGV[3])) do
  local g = gate(new.pool)
  if g then
    local version = new.price_v or 0
    if new.price and version >= (g.price_v or 0) then
      g.price, g.price_v = new.price, version
    end
    if new.limit then
      g.limit = new.limit > 0 and new.limit or nil
    end
    if new.phase and new.phase > (g.phase or 0) then
      g.phase = new.phase
    end
    if new.waiting ~= nil then g.waiting = new.waiting or nil end
  end
end
save_gates()
return cmsgpack.pack({'ok', now})
