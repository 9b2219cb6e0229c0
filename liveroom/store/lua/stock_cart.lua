-- What is in a cart: the holds that have not expired and are not being placed.
-- Guarantees: changes nothing.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, cart ("<room>/<buyer>").
-- Returns: msgpack [word, now, holds]; word ok | shut.
-- Emits: nothing.
-- part: stock_begin
if not open then
  return cmsgpack.pack({'shut', now})
end
-- part: stock_rows
-- part: stock_holds
local mine = {}
read_holds(read_cart(ARGV[3]))
for _, id in ipairs(read_cart(ARGV[3])) do
  local h = get_hold(id)
  if h[STATE] == 'held' and h[DUE] > now then
    mine[#mine + 1] = h
  end
end
return cmsgpack.pack({'ok', now, mine})
