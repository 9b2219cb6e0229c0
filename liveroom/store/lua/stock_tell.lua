-- Tell gates what the ledger says: the one way a gate's base moves.
-- Guarantees: idempotent and in any order; what buyers have taken counts from the step in which
--   their holds end, never later; a range that came too early is parked (at most
--   PARKED_MAX for a pool; what is not parked is told again from the ledger).
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, ranges: msgpack of [[pool, from, to, available_after, [hold]]],
--   counts: msgpack of [[pool, buyer, seq, units]].
-- Returns: msgpack [word, now, pools with a limit that moved, pools without a gate];
--   word ok | shut.
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
-- part: stock_counts
local limited, missing = {}, {}

local function apply(g, to, after, ids)
  read_holds(ids)
  for _, id in ipairs(ids) do
    local h = get_hold(id)
    if h then end_hold(h) end
  end
  if to > g.seq then
    g.base, g.seq = after, to
  end
end

-- part: stock_parked
count_taken(cmsgpack.unpack(ARGV[4]))
for _, range in ipairs(cmsgpack.unpack(ARGV[3])) do
  local pool, from, to, after, ids = unpack(range)
  local g = gate(pool)
  if not g then
    missing[#missing + 1] = pool
  elseif from > g.seq + 1 then
    park(pool, {from, to, after, ids})
  else
    apply(g, to, after, ids)
    unpark(pool, g)
  end
  if g and g.limit then limited[#limited + 1] = pool end
end
save()
return cmsgpack.pack({'ok', now, limited, missing})
