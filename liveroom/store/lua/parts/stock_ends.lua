local function held_by(field)
  if holding[field] == nil then
    holding[field] = redis.call('HGET', holding_key, field)
  end
  return tonumber(holding[field] or 0)
end

-- Units of open holds count for a limit only where the hold says so.
local function count_units(h, units)
  if h[COUNTED] then
    local field = h[POOL] .. '/' .. h[BUYER]
    holding[field] = held_by(field) + units
    recounted[field] = holding[field] > 0 and holding[field]
  end
end

-- The hold is gone and its units are free.
local function end_hold(h)
  local g = gate(h[POOL])
  g.held = g.held - h[QTY]
  opened = opened - 1
  holds[h[ID]], changed[h[ID]] = false, true
  for _, key in ipairs(h[MADE_BY]) do
    name(key, false)
  end
  count_units(h, -h[QTY])
  if h[TILL] then
    change_cart(cart_of(h), h[ID])
  end
end
