-- What is in each of many carts: the holds that have not expired and are not being placed.
-- Guarantees: changes nothing.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, carts: msgpack of ["<room>/<buyer>"].
-- Returns: msgpack [word, now, [holds of each cart]]; word ok | shut | lost, which says that the
--   holds' key is gone.
-- Emits: nothing.
-- part: stock_begin
if not open then
  return cmsgpack.pack({'shut', now})
end
-- part: stock_rows
-- part: stock_holds
local fields, ids, found = cmsgpack.unpack(ARGV[3]), {}, {}
read_carts(fields)
for i = 1, #fields do
  for _, id in ipairs(read_cart(fields[i])) do ids[#ids + 1] = id end
end
read_holds(ids)
for i = 1, #fields do
  local mine = {}
  for _, id in ipairs(read_cart(fields[i])) do
    local h = get_hold(id)
    if not h then
      return cmsgpack.pack({'lost', now})
    end
    if h[STATE] == 'held' and h[DUE] > now then mine[#mine + 1] = h end
  end
  found[i] = mine
end
return cmsgpack.pack({'ok', now, found})
