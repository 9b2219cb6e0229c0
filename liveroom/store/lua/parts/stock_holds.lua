local function get_hold(id)
  local packed = redis.call('HGET', holds_key, id)
  return packed and cmsgpack.unpack(packed)
end

local function put_hold(h)
  redis.call('HSET', holds_key, h.id, cmsgpack.pack(h))
  if h.state == 'placing' then
    redis.call('ZREM', due_key, h.id)
    redis.call('ZADD', placing_key, h.due, h.id)
  else
    redis.call('ZREM', placing_key, h.id)
    redis.call('ZADD', due_key, h.due, h.id)
  end
end

local function read_cart(field)
  local packed = redis.call('HGET', carts_key, field)
  return packed and cmsgpack.unpack(packed) or {}
end

-- The ids of a cart with `old` left out and `new`, where given, added.
local function change_cart(field, old, new)
  local ids = {new}
  for _, id in ipairs(read_cart(field)) do
    if id ~= old then
      ids[#ids + 1] = id
    end
  end
  if #ids > 0 then
    redis.call('HSET', carts_key, field, cmsgpack.pack(ids))
  else
    redis.call('HDEL', carts_key, field)
  end
end

-- Units of open holds count for a limit only where the hold says so.
local function count_units(h, units)
  if h.counted and redis.call('HINCRBY', holding_key, h.pool .. '/' .. h.buyer, units) <= 0 then
    redis.call('HDEL', holding_key, h.pool .. '/' .. h.buyer)
  end
end

-- The hold is gone and its units are free. The caller saves the gates.
local function end_hold(h)
  local g = gate(h.pool)
  g.held = g.held - h.qty
  redis.call('HDEL', holds_key, h.id)
  redis.call('HDEL', known_key, unpack(h.keys))
  redis.call('ZREM', h.state == 'placing' and placing_key or due_key, h.id)
  redis.call('HINCRBY', gates_key, '#', -1)
  count_units(h, -h.qty)
  if h.cart then
    change_cart(h.cart, h.id)
  end
end
