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
    g.limit and r[WHO] ~= '' or false, line[INTO]}
end
