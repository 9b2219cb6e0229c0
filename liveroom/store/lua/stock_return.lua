-- Give placing holds back to their carts, with their old deadlines.
-- Guarantees: a hold past its old deadline ends, and its buyer is told; a hold that is no
--   cart's ends; a void hold returns under a new id, since nobody may place the old one; a
--   hold that another attempt was handed as well stays, unless it is void in SQL.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, holds: msgpack of [[id, new id, void]].
-- Returns: msgpack [word, now, holds that returned]; word ok | shut.
-- Emits: [[pool, left, v]] on the channel, once, where a hold ended.
-- part: stock_begin
if not open then
  return cmsgpack.pack({'shut', now})
end
-- part: stock_gates
-- part: stock_holds
-- part: stock_save

local function rename(h, id)
  holds[h.id], changed[h.id] = false, true
  for _, key in ipairs(h.keys) do
    known[key] = id
  end
  change_cart(h.cart, h.id, id)
  h.id = id
end

local returned = {}
for _, want in ipairs(cmsgpack.unpack(ARGV[3])) do
  local h, id, void = get_hold(want[1]), want[2], want[3]
  if h and h.state == 'placing' and (void or not h.shared) then
    if not h.cart then
      end_hold(h)
    elseif h.till <= now then
      end_hold(h)
      redis.call('RPUSH', ended_key, cmsgpack.pack(h))
    else
      if void then rename(h, id) end
      h.state, h.due, h.order, h.shared = 'held', h.till, nil, nil
      put_hold(h)
      returned[#returned + 1] = h
    end
  end
end
save()
return cmsgpack.pack({'ok', now, returned})
