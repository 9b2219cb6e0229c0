-- Offer units to buyers who wait, in their order: holds in their carts.
-- Guarantees: as stock_hold; a pool that is offered has its flag from here on; each is offered
--   what there is, up to what it asked and what its limit leaves, and never nothing.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, held_ms, requests as stock_hold reads them, each of one line.
-- Returns: as stock_hold.
-- Emits: [[pool, left, v]] on the channel, once.
-- part: stock_begin
if not open or marked then
  return cmsgpack.pack({marked and 'marked' or 'shut', now, marked})
end
-- part: stock_rows
-- part: stock_gates
-- part: stock_holds
-- part: stock_ends
-- part: stock_pack
-- part: stock_save
-- part: stock_ahead
local held_ms, placing_ms, offering = tonumber(ARGV[3]), 0, true
-- part: stock_make
-- part: stock_decide

-- At least 1, so that whoever gets nothing is told why.
local function clip(r, line, g)
  local field, most = limited_field(r, line), g.base - g.held
  if field then
    local had = (taken[field] and cmsgpack.unpack(taken[field])[2] or 0) + held_by(field)
    most = math.min(most, g.limit - had)
  end
  line[UNITS] = math.max(1, math.min(line[UNITS], most))
end

local requests, answers = read_requests(cmsgpack.unpack(ARGV[4])), {}
read_ahead(requests)
for i = 1, #requests do
  local r = requests[i]
  local line = r[LINES][1]
  local g = gates[line[POOL]]
  if g then
    g.waiting = true
    clip(r, line, g)
  end
  answers[i] = decide(r)
end
save()
return list_head[3] .. packed.ok .. packed[now] .. list_head[#answers] .. table.concat(answers)
