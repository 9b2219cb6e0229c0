-- Holds, keys, carts and counts are read once and written once, by save().
local holds, known, carts, holding, recounted = {}, {}, {}, {}, {}
local was, changed = {}, {} -- the state each hold was read in; the ids that must be written
local opened = 0

-- Read those of the holds that this call has not looked at.
local function read_holds(wanted)
  local ids = {}
  for _, id in ipairs(wanted) do
    if holds[id] == nil then ids[#ids + 1] = id end
  end
  for from = 1, #ids, 1000 do
    local to = math.min(from + 999, #ids)
    for i, packed in ipairs(redis.call('HMGET', holds_key, unpack(ids, from, to))) do
      local h = packed and cmsgpack.unpack(packed)
      holds[ids[from + i - 1]], was[ids[from + i - 1]] = h, h and h.state
    end
  end
end

local function get_hold(id)
  if holds[id] == nil then
    read_holds({id})
  end
  return holds[id]
end

local function put_hold(h)
  holds[h.id], changed[h.id] = h, true
end

local function read_cart(field)
  if carts[field] == nil then
    local packed = redis.call('HGET', carts_key, field)
    carts[field] = packed and cmsgpack.unpack(packed) or {}
  end
  return carts[field]
end

-- Leave `old` out of a cart and add `new`, where it is given.
local function change_cart(field, old, new)
  local ids = {new}
  for _, id in ipairs(read_cart(field)) do
    if id ~= old then
      ids[#ids + 1] = id
    end
  end
  carts[field] = ids
  changed[field] = true
end

local function held_by(field)
  holding[field] = holding[field] or tonumber(redis.call('HGET', holding_key, field) or 0)
  return holding[field]
end

-- Units of open holds count for a limit only where the hold says so.
local function count_units(h, units)
  if h.counted then
    local field = h.pool .. '/' .. h.buyer
    holding[field] = held_by(field) + units
    recounted[field] = holding[field]
  end
end

-- The hold is gone and its units are free.
local function end_hold(h)
  local g = gate(h.pool)
  g.held = g.held - h.qty
  opened = opened - 1
  holds[h.id], changed[h.id] = false, true
  for _, key in ipairs(h.keys) do
    known[key] = false
  end
  count_units(h, -h.qty)
  if h.cart then
    change_cart(h.cart, h.id)
  end
end
