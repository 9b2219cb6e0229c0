local function write(command, key, args)
  for from = 1, #args, 1000 do
    redis.call(command, key, unpack(args, from, math.min(from + 999, #args)))
  end
end

local function write_hash(key, values, is_gone)
  local set, gone = {}, {}
  for field, value in pairs(values) do
    if is_gone(value) then
      gone[#gone + 1] = field
    else
      set[#set + 1] = field
      set[#set + 1] = type(value) == 'table' and cmsgpack.pack(value) or value
    end
  end
  write('HSET', key, set)
  write('HDEL', key, gone)
end

local function save()
  local rows, ids, waiting = {}, {}, {held = {}, placing = {}}
  local left = {held = {}, placing = {}}
  for id in pairs(changed) do
    local h = holds[id]
    if h ~= nil then
      rows[id] = h
      if h then
        local set = waiting[h.state]
        set[#set + 1] = h.due
        set[#set + 1] = id
      end
      if was[id] and (not h or h.state ~= was[id]) then
        left[was[id]][#left[was[id]] + 1] = id
      end
    else
      ids[id] = carts[id]
    end
  end
  write_hash(holds_key, rows, function(h) return not h end)
  write_hash(carts_key, ids, function(cart) return #cart == 0 end)
  write_hash(known_key, known, function(id) return not id end)
  write_hash(holding_key, recounted, function(units) return units <= 0 end)
  write('ZREM', due_key, left.held)
  write('ZREM', placing_key, left.placing)
  write('ZADD', due_key, waiting.held)
  write('ZADD', placing_key, waiting.placing)
  if opened ~= 0 then
    redis.call('HINCRBY', gates_key, '#', opened)
  end
  save_gates()
end
