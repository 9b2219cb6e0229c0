-- Turn the unexpired holds of a cart to placing, for one order.
-- Guarantees: all holds of the cart or none; the same order gets its holds again; while one order
--   is taking the cart every other is busy, or each might take what lies in one partition.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, placing_ms, cart ("<room>/<buyer>"), order, spent: msgpack of
--   [orders on record, whose holds here are waiting to be told].
-- Returns: msgpack [ok, now, holds], none where the cart is empty; [busy, now, the other order];
--   [hold_expired | shut | marked | lost, now], lost where the holds' key is gone.
-- Emits: nothing; what is left does not change.
-- part: stock_begin
if not open or marked then
  return cmsgpack.pack({marked and 'marked' or 'shut', now, marked})
end
-- part: stock_rows
-- part: stock_gates
-- part: stock_holds
-- part: stock_pack
-- part: stock_save
local placing_ms, cart, order = tonumber(ARGV[3]), ARGV[4], ARGV[5]
local mine, held, spent = {}, {}, {}
for _, other in ipairs(cmsgpack.unpack(ARGV[6])) do spent[other] = true end
read_holds(read_cart(cart))
for _, id in ipairs(read_cart(cart)) do
  local h = get_hold(id)
  if not h then
    return cmsgpack.pack({'lost', now})
  elseif h[STATE] == 'placing' and h[ORDER] == order then
    mine[#mine + 1] = h
  elseif h[STATE] == 'placing' then
    if not spent[h[ORDER]] then
      return cmsgpack.pack({'busy', now, h[ORDER]})
    end
  elseif h[DUE] <= now then
    return cmsgpack.pack({'hold_expired', now})
  else
    held[#held + 1] = h
  end
end
-- From here on it must succeed.
if #mine > 0 then
  for _, h in ipairs(mine) do
    h[SHARED] = true -- another attempt of this order may place it
    put_hold(h)
  end
  save()
  return cmsgpack.pack({'ok', now, mine})
end
for _, h in ipairs(held) do
  h[STATE], h[ORDER], h[DUE], h[SHARED] = 'placing', order, now + placing_ms, false
  put_hold(h)
end
save()
return cmsgpack.pack({'ok', now, held})
