-- The places of a request and of its lines; a line begins like a hold. INTO is the bucket of a
-- hold that it makes, FOUND is set by decide.
local WHO, WHERE, CART, LINES = 1, 2, 3, 4
local KEY, UNITS, SEEN, INTO, FOUND = 5, 6, 7, 8, 9
local taken = {}

local function limited_field(r, line)
  local g = gates[line[POOL]]
  return g and g.limit and r[WHO] ~= '' and line[POOL] .. '/' .. r[WHO]
end

-- The requests of a list that holds all their values, one after another: a list of lists costs
-- cmsgpack more than twice as much.
local function read_requests(flat)
  local requests, at = {}, 1
  while flat[at] do
    local r, count = {flat[at], flat[at + 1], flat[at + 2], {}}, flat[at + 3]
    at = at + 4
    for i = 1, count do
      r[LINES][i] = {flat[at], flat[at + 1], flat[at + 2], flat[at + 3], flat[at + 4],
        flat[at + 5], flat[at + 6], flat[at + 7], false}
      at = at + 8
    end
    requests[#requests + 1] = r
  end
  return requests
end

-- Read what the batch will look at, in as few calls as can be.
local function read_ahead(requests)
  local keys, fields, baskets, ids = {}, {}, {}, {}
  for i = 1, #requests do
    local r = requests[i]
    local lines = r[LINES]
    for j = 1, #lines do
      local line = lines[j]
      gate(line[POOL])
      keys[#keys + 1] = line[KEY]
      fields[#fields + 1] = limited_field(r, line) or nil
    end
    baskets[#baskets + 1] = r[CART] or nil
  end
  read_fields(known_key, keys, known)
  read_fields(taken_key, fields, taken)
  read_fields(holding_key, fields, holding)
  read_carts(baskets)
  for i = 1, #keys do
    ids[#ids + 1] = known[keys[i]] or nil
  end
  for i = 1, #baskets do
    for _, id in ipairs(carts[baskets[i]]) do ids[#ids + 1] = id end
  end
  read_holds(ids)
end

local function same(r, line, h)
  return h[BUYER] == r[WHO] and h[ROOM] == r[WHERE] and (r[CART] or h[QTY] == line[UNITS])
end

-- The hold of this pool that is in the buyer's cart already.
local function in_cart(r, pool)
  for _, id in ipairs(carts[r[CART]]) do
    local h = holds[id]
    if h and h[POOL] == pool then
      return h
    end
  end
end
