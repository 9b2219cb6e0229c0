-- Holds, keys, carts and counts are read once, many at a time, and written once, by save().
local holds, known, carts, holding = {}, {}, {}, {}
local was = {} -- the state each hold was read in
local changed, named, recarted, recounted = {}, {}, {}, {} -- what must be written
local opened = 0

-- Read fields of a hash into a table, false where there is none.
local function read_fields(key, fields, into)
  for from = 1, #fields, 1000 do
    local to = math.min(from + 999, #fields)
    local values = redis.call('HMGET', key, unpack(fields, from, to))
    for i = 1, #values do
      into[fields[from + i - 1]] = values[i]
    end
  end
end

-- Read those of the holds that this call has not looked at.
local function read_holds(wanted)
  local ids = {}
  for i = 1, #wanted do
    if holds[wanted[i]] == nil then ids[#ids + 1] = wanted[i] end
  end
  read_fields(holds_key, ids, holds)
  for i = 1, #ids do
    local h = holds[ids[i]]
    if h and not was[ids[i]] then
      h = cmsgpack.unpack(h)
      holds[ids[i]], was[ids[i]] = h, h[STATE]
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
  holds[h[ID]], changed[h[ID]] = h, true
end

local function name(key, id)
  known[key], named[key] = id, id
end

local function cart_of(h)
  return h[TILL] and h[ROOM] .. '/' .. h[BUYER]
end

local function read_carts(fields)
  read_fields(carts_key, fields, carts)
  for i = 1, #fields do
    local ids = carts[fields[i]]
    if type(ids) ~= 'table' then
      carts[fields[i]] = ids and cmsgpack.unpack(ids) or {}
    end
  end
end

local function read_cart(field)
  if carts[field] == nil then read_carts({field}) end
  return carts[field]
end

-- Leave `old` out of a cart and add `new`, where it is given.
local function change_cart(field, old, new)
  local ids = {new}
  for _, id in ipairs(read_cart(field)) do
    if id ~= old then ids[#ids + 1] = id end
  end
  carts[field], recarted[field] = ids, #ids > 0 and cmsgpack.pack(ids)
end
