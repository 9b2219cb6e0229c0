-- The room's log, begun anew when it is not there or may have been rolled back: a partition
-- remembers the server run its logs belong to, and any other run makes a new generation of
-- them. A new log has a new epoch, seq 0, and no pins (SQL knows those); messages stay.
local generation -- of the partition's logs, once it has been read

local function read_generation(run_key, fresh)
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  local part = redis.call('HMGET', run_key, 'run', 'generation')
  if part[1] == run then return part[2] end
  redis.call('HSET', run_key, 'run', run, 'generation', fresh)
  return fresh
end

local function open_log(run_key, log_key, events_key, fresh)
  generation = generation or read_generation(run_key, fresh)
  local log = redis.call('HMGET', log_key, 'generation', 'epoch', 'seq', 'n', 'pinned', 'kept')
  if log[1] ~= generation then
    redis.call('UNLINK', events_key)
    redis.call('HSET', log_key, 'generation', generation, 'epoch', fresh, 'seq', 0, 'pinned', '')
    log = { generation, fresh, 0, log[4], '', log[6] }
  end
  return {
    epoch = log[2], seq = tonumber(log[3]), n = tonumber(log[4] or 0), pinned = log[5],
    kept = log[6],
  }
end

-- Keep each versioned field at its newest; the newest values of those the event tells.
local function newest(log_key, fields)
  local tell = {}
  for name, field in pairs(fields or {}) do
    local v_name, f_name = 'v:' .. name, 'f:' .. name
    local held = redis.call('HMGET', log_key, v_name, f_name)
    if not held[1] or tonumber(held[1]) < field.v then
      redis.call('HSET', log_key, v_name, string.format('%.0f', field.v), f_name, field.value)
      held[2] = field.value
    end
    if field.tell then tell[name] = held[2] end
  end
  return next(tell) and tell or nil
end

-- A message is gone when it was removed, not when `kept` newer ones pushed it out.
local function gone(log, messages_key, message, kept)
  local epoch, n = string.match(message, '^(.*)%-(%d+)$')
  if not n or tonumber(n) > log.n then return true end
  local found = redis.call('XRANGE', messages_key, n .. '-0', n .. '-0')[1]
  if found then return found[2][2] ~= epoch end
  return epoch ~= log.epoch or tonumber(n) > log.n - kept
end
