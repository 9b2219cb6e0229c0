-- Give placing holds back to their carts, with their old deadlines.
-- Guarantees: a hold past its old deadline ends, and its buyer is told; a hold that is no
--   cart's ends; a void hold returns under a new id, since nobody may place the old one; a
--   hold that another attempt was handed as well stays, unless it is void in SQL; and so does
--   one that is past due, which a sweep may have made void meanwhile.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, holds: msgpack of [[id, new id, void]].
-- Returns: msgpack [word, now, holds that returned]; word ok | shut | lost, which says that the
--   gates' key is gone.
-- Emits: [[pool, left, v]] on the channel, once, where a hold ended.
-- part: stock_begin
if not open then
  return cmsgpack.pack({'shut', now})
end
if redis.call('HEXISTS', gates_key, '#') == 0 then
  return cmsgpack.pack({'lost', now})
end
-- part: stock_rows
-- part: stock_gates
-- part: stock_holds
-- part: stock_ends
-- part: stock_pack
-- part: stock_save

local function rename(h, id)
  holds[h[ID]], changed[h[ID]] = false, true
  for _, key in ipairs(h[MADE_BY]) do
    name(key, id)
  end
  change_cart(cart_of(h), h[ID], id)
  h[ID] = id
end

local returned = {}
for _, want in ipairs(cmsgpack.unpack(ARGV[3])) do
  local h, id, void = get_hold(want[1]), want[2], want[3]
  if h and h[STATE] == 'placing' and (void or (not h[SHARED] and h[DUE] > now)) then
    if not h[TILL] then
      end_hold(h)
    elseif h[TILL] <= now then
      end_hold(h)
      redis.call('RPUSH', ended_key, cmsgpack.pack(h))
    else
      if void then rename(h, id) end
      h[STATE], h[DUE], h[ORDER], h[SHARED] = 'held', h[TILL], false, false
      put_hold(h)
      returned[#returned + 1] = h
    end
  end
end
save()
return cmsgpack.pack({'ok', now, returned})
