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
    local before = log[2] and log[2] .. ':' .. (redis.call('HGET', log_key, 'first') or 0)
    redis.call('HSET', log_key, 'generation', generation, 'epoch', fresh, 'seq', 0, 'pinned', '',
      'first', log[4] or 0, 'before', before or '')
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

-- A message is gone when it was removed, not when `MESSAGES_MIN` newer ones pushed it out: it may
-- be on screens still. Of those only their numbers are known, which this epoch and the one before
-- gave out: an epoch's messages follow `first`.
local MESSAGES_MIN = 200

local function gone(log, log_key, messages_key, message)
  local epoch, digits = string.match(message, '^(.*)%-([1-9]%d*)$')
  local n = tonumber(digits)
  if not n or n > log.n then return true end
  local found = redis.call('XRANGE', messages_key, digits .. '-0', digits .. '-0')[1]
  if found then return found[2][2] ~= epoch end
  if n > log.n - MESSAGES_MIN then return true end
  local began = redis.call('HMGET', log_key, 'first', 'before')
  local first = tonumber(began[1] or 0)
  if epoch == log.epoch then return n <= first end
  local before, after = string.match(began[2] or '', '^(.*):(%d+)$')
  return epoch ~= before or n <= tonumber(after) or n > first
end
