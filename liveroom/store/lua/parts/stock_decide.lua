-- A hold remembers so many of the requests that made it grow.
local KEYS_MAX = 16

local function add(h, line, g)
  local keys, units = h[MADE_BY], line[UNITS]
  keys[#keys + 1] = line[KEY]
  name(line[KEY], h[ID])
  if #keys > KEYS_MAX then
    name(table.remove(keys, 1), false)
  end
  h[QTY] = h[QTY] + units
  g.held = g.held + units
  count_units(h, units)
  put_hold(h)
end

-- Find the hold of each line that needs none: its key's own. Why not, where something is wrong.
local function find(r, lines)
  for i = 1, #lines do
    local line = lines[i]
    local id = known[line[KEY]]
    local h = id and holds[id]
    if h and not same(r, line, h) then return {'id_reused', line[POOL]} end
    if h and h[STATE] == 'held' and h[DUE] <= now then return {'due', line[POOL]} end
    line[FOUND] = h
  end
end

local function short(r, line, g)
  if g.waiting and not offering and r[WHO] ~= '' then
    return {'sold_out', line[POOL], 0, false}
  end
  local left = g.base - g.held
  if left >= line[UNITS] then return nil end
  local parked = redis.call('HEXISTS', parked_key, line[POOL]) == 1
  return {'sold_out', line[POOL], left, g.base == 0 and g.held == 0 and not parked}
end

-- What a request gets, packed.
local function decide(r)
  local lines = r[LINES]
  local no, carted = find(r, lines), r[CART] and {}
  for i = 1, #lines do
    local line = lines[i]
    if not no and not line[FOUND] then
      local h = carted and in_cart(r, line[POOL])
      if h then carted[i] = h end
      no = refusal(r, line, gates[line[POOL]], h)
    end
  end
  for i = 1, #lines do
    no = no or not lines[i][FOUND] and short(r, lines[i], gates[lines[i][POOL]])
  end
  if no then return cmsgpack.pack(no) end
  -- From here on it must succeed.
  local answer = list_head[1 + 6 * #lines] .. packed.ok
  for i = 1, #lines do
    local line = lines[i]
    local h, g = line[FOUND], gates[line[POOL]]
    if not h then
      h = carted and carted[i] or make(r, line, g)
      add(h, line, g)
    elseif not carted then
      h[SHARED] = true -- another attempt may place it: nobody may end it unless it is void
      put_hold(h)
    end
    answer = answer .. text_head[#h[ID]] .. h[ID] .. packed[h[QTY]] .. packed[h[PRICE]]
      .. packed[h[STATE]] .. packed[h[DUE]] .. packed[h[BUCKET] or false]
  end
  return answer
end
