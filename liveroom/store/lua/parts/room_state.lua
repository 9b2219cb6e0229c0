-- What a room counts, as state events: [name, at, data] packed. `v` is the time of the change,
-- or one more than the last, so that it grows over every loss of this server's memory too.
local function next_v(log_key, field, at)
  local v = math.max(at, tonumber(redis.call('HGET', log_key, field) or 0) + 1)
  redis.call('HSET', log_key, field, string.format('%.0f', v))
  return v
end

local function react(log_key, reactions_key, counts, at)
  for kind, count in pairs(counts) do
    redis.call('HINCRBY', reactions_key, kind, count)
  end
  local all, flat = {}, redis.call('HGETALL', reactions_key)
  for i = 1, #flat, 2 do all[flat[i]] = tonumber(flat[i + 1]) end
  local data = { reactions = all, v = next_v(log_key, 'reactions_v', at) }
  return cmsgpack.pack({ 'reactions.counted', at, data })
end

-- Each node's count lapses by this server's clock unless told again. Nil where the sum stays.
local function count_viewers(log_key, viewers_key, told, at)
  local now = tonumber(redis.call('TIME')[1])
  redis.call('HSET', viewers_key, told.node, told.viewers .. ':' .. (now + told.ttl_s))
  local sum, flat = 0, redis.call('HGETALL', viewers_key)
  for i = 1, #flat, 2 do
    local viewers, lapses = string.match(flat[i + 1], '(%d+):(%d+)')
    if tonumber(lapses) <= now or viewers == '0' then
      redis.call('HDEL', viewers_key, flat[i])
    else
      sum = sum + tonumber(viewers)
    end
  end
  if tonumber(redis.call('HGET', log_key, 'viewers') or 0) == sum then return nil end
  redis.call('HSET', log_key, 'viewers', sum)
  local data = { viewers = sum, v = next_v(log_key, 'viewers_v', at) }
  return cmsgpack.pack({ 'viewers.counted', at, data })
end
