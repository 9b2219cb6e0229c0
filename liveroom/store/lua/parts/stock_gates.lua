local gates, read, left_before = {}, {}, {} -- of the pools this call has looked at

-- What anybody could hold now: nothing while others wait, since only offers may hold then.
local function left_of(g)
  return g.waiting and 0 or g.base - g.held
end

local function gate(pool)
  if gates[pool] == nil then
    local packed = redis.call('HGET', gates_key, pool)
    gates[pool] = packed and cmsgpack.unpack(packed) or false
    read[pool] = packed
    left_before[pool] = packed and left_of(gates[pool])
  end
  return gates[pool]
end

-- Write the gates that changed. Where `left` did, n grows and one message tells all of them.
local function save_gates()
  local told = {}
  for pool, g in pairs(gates) do
    if g then
      local left = left_of(g)
      if left ~= left_before[pool] then
        g.n = g.n + 1
        told[#told + 1] = {pool, left, epoch * 4294967296 + g.n}
      end
      local packed = cmsgpack.pack(g)
      if packed ~= read[pool] then
        redis.call('HSET', gates_key, pool, packed)
      end
    end
  end
  if #told > 0 then
    redis.call('SPUBLISH', channel, cmsgpack.pack(told))
  end
end
