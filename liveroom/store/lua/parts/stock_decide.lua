-- A hold remembers so many of the requests that made it grow.
local KEYS_MAX = 16

local function add(h, r, line, g)
  h.keys[#h.keys + 1] = r.key .. '/' .. line.pool
  known[h.keys[#h.keys]] = h.id
  if #h.keys > KEYS_MAX then
    known[table.remove(h.keys, 1)] = false
  end
  h.qty = h.qty + line.qty
  g.held = g.held + line.qty
  count_units(h, line.qty)
  put_hold(h)
end

local function decide(r)
  local holds, carted = {}, {}
  for i, line in ipairs(r.lines) do
    local h = hold_of(r, line)
    if h and not same(r, line, h) then return {'id_reused', line.pool} end
    if h and h.state == 'held' and h.due <= now then return {'due', line.pool} end
    holds[i] = h or false
  end
  for i, line in ipairs(r.lines) do
    if not holds[i] then
      carted[i] = in_cart(r, line.pool)
      local no = refusal(r, line, gate(line.pool), carted[i])
      if no then return no end
    end
  end
  for i, line in ipairs(r.lines) do
    local g = gate(line.pool)
    if not holds[i] and g.base - g.held < line.qty then
      local parked = redis.call('HEXISTS', parked_key, line.pool) == 1
      return {'sold_out', line.pool, g.base - g.held, g.base == 0 and g.held == 0 and not parked}
    end
  end
  -- From here on it must succeed.
  for i, line in ipairs(r.lines) do
    if not holds[i] then
      holds[i] = carted[i] or make(r, line, gate(line.pool))
      add(holds[i], r, line, gate(line.pool))
    elseif r.kind == 'placing' then
      holds[i].shared = true -- another attempt may place it: nobody may end it unless it is void
      put_hold(holds[i])
    end
  end
  local granted = {}
  for i, h in ipairs(holds) do
    granted[i] = {h.id, h.qty, h.price, h.state, h.due}
  end
  return {'ok', granted}
end
