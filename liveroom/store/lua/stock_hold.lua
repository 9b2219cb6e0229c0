-- Hold units for a batch of requests, each all its lines or none.
-- Guarantees: requests are decided in order; a refused one changes nothing; a key that an open
--   hold knows answers that hold again; left never falls below 0.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, held_ms, placing_ms, requests: msgpack of one list of all requests,
--   each as buyer, room, cart or false, number of lines, and of each line id, pool, sku, drop or
--   false, key, qty, price or false; a request with a cart is held, one without is placing; its
--   lines are of different pools; a buyer of '' is the house, which has no limits and may take
--   from a drop that is shut.
-- Returns: msgpack [word, now, answers]; word ok | shut | marked; an answer is
--   [ok, then id, qty, price, state, due of each line] | [missing|due|busy|id_reused|not_open
--   |limit_reached, pool] | [price_changed, pool, price] | [sold_out, pool, left, memorable].
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
local held_ms, placing_ms = tonumber(ARGV[3]), tonumber(ARGV[4])

-- Why this line cannot be held, in the fixed order; the number of units comes last, in decide.
local function refusal(r, line, g, h)
  local pool, seen = line[POOL], line[SEEN]
  if not g then return {'missing', pool} end
  if (g.phase == 1 or g.phase == 3) and r[WHO] ~= '' then return {'not_open', pool} end
  if h and h[STATE] ~= 'held' then return {'busy', pool} end
  if h and h[DUE] <= now then return {'due', pool} end
  if (seen and seen ~= g.price) or (h and h[PRICE] ~= g.price) then
    return {'price_changed', pool, g.price}
  end
  local field = limited_field(r, line)
  local units = field and (taken[field] and cmsgpack.unpack(taken[field])[2] or 0) + held_by(field)
  if field and units + line[UNITS] > g.limit then
    return {'limit_reached', pool}
  end
end

local function make(r, line, g)
  local cart = r[CART]
  local due = now + (cart and held_ms or placing_ms)
  opened = opened + 1
  if cart then change_cart(cart, nil, line[ID]) end
  return {line[ID], line[POOL], line[SKU], line[DROP], r[WHO], r[WHERE], 0, g.price,
    cart and 'held' or 'placing', due, cart and due, {}, false, false,
    g.limit and r[WHO] ~= '' or false}
end

-- part: stock_decide
local requests, answers = read_requests(cmsgpack.unpack(ARGV[5])), {}
read_ahead(requests)
for i = 1, #requests do
  answers[i] = decide(requests[i])
end
save()
return list_head[3] .. packed.ok .. packed[now] .. list_head[#answers] .. table.concat(answers)
