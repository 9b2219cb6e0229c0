local function write(command, key, args)
  for from = 1, #args, 1000 do
    redis.call(command, key, unpack(args, from, math.min(from + 999, #args)))
  end
end

-- Set the fields that have a value, delete those that have none.
local function write_hash(key, values)
  local set, gone, n = {}, {}, 0
  for field, value in pairs(values) do
    if value then
      set[n + 1], set[n + 2] = field, value
      n = n + 2
    else
      gone[#gone + 1] = field
    end
  end
  write('HSET', key, set)
  write('HDEL', key, gone)
end

local function save()
  local rows, gone, n = {}, {}, 0
  local add, drop = {held = {}, placing = {}}, {held = {}, placing = {}}
  for id in pairs(changed) do
    local h, before = holds[id], was[id]
    if h then
      local set = add[h[STATE]]
      rows[n + 1], rows[n + 2], n = id, pack_hold(h), n + 2
      set[#set + 1] = h[DUE]
      set[#set + 1] = id
    else
      gone[#gone + 1] = id
    end
    if before and (not h or h[STATE] ~= before) then
      drop[before][#drop[before] + 1] = id
    end
  end
  write('HSET', holds_key, rows)
  write('HDEL', holds_key, gone)
  write_hash(carts_key, recarted)
  write_hash(known_key, named)
  write_hash(holding_key, recounted)
  write('ZREM', due_key, drop.held)
  write('ZREM', placing_key, drop.placing)
  write('ZADD', due_key, add.held)
  write('ZADD', placing_key, add.placing)
  if opened ~= 0 then
    redis.call('HINCRBY', gates_key, '#', opened)
  end
  save_gates()
end
