local PARKED_MAX = 256

local function park(pool, range)
  local packed = redis.call('HGET', parked_key, pool)
  local parked = packed and cmsgpack.unpack(packed) or {}
  if #parked < PARKED_MAX then
    parked[#parked + 1] = range
    redis.call('HSET', parked_key, pool, cmsgpack.pack(parked))
  end
end

-- Apply what now follows; every pass over the parked ranges applies at least one, or is the last.
local function unpark(pool, g)
  local packed = redis.call('HGET', parked_key, pool)
  if not packed then return end
  local parked, moved = cmsgpack.unpack(packed), true
  while moved do
    local later = {}
    for _, range in ipairs(parked) do
      if range[1] <= g.seq + 1 then
        apply(g, range[2], range[3], range[4])
      else
        later[#later + 1] = range
      end
    end
    moved, parked = #later < #parked, later
  end
  if #parked > 0 then
    redis.call('HSET', parked_key, pool, cmsgpack.pack(parked))
  else
    redis.call('HDEL', parked_key, pool)
  end
end
