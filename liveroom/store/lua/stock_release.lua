-- End holds that serve nobody: their units are free at once.
-- Guarantees: a hold that is gone is left alone; a hold that another attempt of its order was
--   handed as well ends only where it is void in SQL, otherwise the sweep resolves it.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, holds: msgpack of [[id, state that it must be in or '', void]].
-- Returns: msgpack [word, now, holds that ended]; word ok | shut | lost, which says that the gates'
--   key is gone.
-- Emits: [[pool, left, v]] on the channel, once.
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
local wanted, ids, ended = cmsgpack.unpack(ARGV[3]), {}, {}
for i, want in ipairs(wanted) do
  ids[i] = want[1]
end
read_holds(ids)
for _, want in ipairs(wanted) do
  local h = get_hold(want[1])
  if h and (want[2] == '' or h[STATE] == want[2]) and (want[3] or not h[SHARED]) then
    end_hold(h)
    ended[#ended + 1] = h
  end
end
save()
return cmsgpack.pack({'ok', now, ended})
