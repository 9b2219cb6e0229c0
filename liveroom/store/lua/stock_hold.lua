-- Hold units for a batch of requests, each all its lines or none.
-- Guarantees: requests are decided in order; a refused one changes nothing; a key that an open
--   hold knows answers that hold again; left never falls below 0.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, held_ms, placing_ms, requests: msgpack of
--   [{key, kind: held|placing, buyer, room, lines: [{id, pool, sku, drop?, qty, price?}]}];
--   lines of a request are of different pools; a buyer of '' has no limits.
-- Returns: msgpack [word, now, answers]; word ok | shut | marked; an answer is
--   [ok, [[id, qty, price, state, due]]], one for each line | [missing|due|busy|id_reused|not_open|limit_reached, pool]
--   | [price_changed, pool, price] | [sold_out, pool, left, memorable].
-- Emits: [[pool, left, v]] on the channel, once.
-- part: stock_begin
if not open or marked then
  return cmsgpack.pack({marked and 'marked' or 'shut', now, marked})
end
-- part: stock_gates
-- part: stock_holds
-- part: stock_save
local term = {held = tonumber(ARGV[3]), placing = tonumber(ARGV[4])}

-- part: stock_known
local function over_limit(r, line, g)
  if not g.limit or r.buyer == '' then
    return false
  end
  local field = line.pool .. '/' .. r.buyer
  local taken = redis.call('HGET', taken_key, field)
  return (taken and cmsgpack.unpack(taken)[2] or 0) + held_by(field) + line.qty > g.limit
end

-- Why this line cannot be held, in the fixed order; the number of units comes last, in decide.
local function refusal(r, line, g, h)
  if not g then return {'missing', line.pool} end
  if g.closed then return {'not_open', line.pool} end
  if h and h.state ~= 'held' then return {'busy', line.pool} end
  if h and h.due <= now then return {'due', line.pool} end
  if (line.price and line.price ~= g.price) or (h and h.price ~= g.price) then
    return {'price_changed', line.pool, g.price}
  end
  if over_limit(r, line, g) then return {'limit_reached', line.pool} end
end

local function make(r, line, g)
  local cart = r.kind == 'held' and r.room .. '/' .. r.buyer or nil
  local due = now + term[r.kind]
  local h = {id = line.id, pool = line.pool, sku = line.sku, drop = line.drop, buyer = r.buyer,
    room = r.room, qty = 0, price = g.price, state = r.kind, due = due, cart = cart,
    till = cart and due, keys = {}, counted = g.limit and r.buyer ~= '' or nil}
  opened = opened + 1
  if cart then change_cart(cart, nil, h.id) end
  return h
end

-- part: stock_decide
local requests, answers = cmsgpack.unpack(ARGV[5]), {}
read_known(requests)
for i, r in ipairs(requests) do
  answers[i] = decide(r)
end
save()
return cmsgpack.pack({'ok', now, answers})
