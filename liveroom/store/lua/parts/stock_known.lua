local function read_known(requests)
  local fields = {}
  for _, r in ipairs(requests) do
    for _, line in ipairs(r.lines) do
      fields[#fields + 1] = r.key .. '/' .. line.pool
    end
  end
  for from = 1, #fields, 1000 do
    local to = math.min(from + 999, #fields)
    for i, id in ipairs(redis.call('HMGET', known_key, unpack(fields, from, to))) do
      known[fields[from + i - 1]] = id
    end
  end
end

local function hold_of(r, line)
  local id = known[r.key .. '/' .. line.pool]
  return id and get_hold(id)
end

local function same(r, line, h)
  return h.buyer == r.buyer and h.room == r.room and (r.kind == 'held' or h.qty == line.qty)
end

-- The hold of this pool that is in the buyer's cart already.
local function in_cart(r, pool)
  for _, id in ipairs(r.kind == 'held' and read_cart(r.room .. '/' .. r.buyer) or {}) do
    local h = get_hold(id)
    if h and h.pool == pool then
      return h
    end
  end
end
