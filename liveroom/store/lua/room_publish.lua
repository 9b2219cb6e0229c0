-- Publish a batch of one room's items, in order.
--
-- Guarantees: logged events take the room's next seq and messages its next n, without gap;
--   they are stored and leave in this one step. An item that is refused changes nothing and
--   stops no other. A versioned field only grows, and an event tells its newest value. An
--   item with a `once` key is published once; for `once_s` it gets the first answer again.
-- Keys: run, log, events, messages, reactions, viewers, channel, then one for each `once`
-- Arguments: room, fresh epoch, time in ms, items (msgpack; see backplane.py)
-- Returns: msgpack [word or [epoch, [event]] for each item]
-- Emits: msgpack [room, epoch, [event]], once for the batch; event {e, s?, n?, f?}
local run_key, log_key, events_key, messages_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local reactions_key, viewers_key, channel, once_keys = KEYS[5], KEYS[6], KEYS[7], 7
local room, fresh, at, items = ARGV[1], ARGV[2], tonumber(ARGV[3]), cmsgpack.unpack(ARGV[4])
local EVENTS_MIN, PINNED_MAX, KEPT_S = 1000, 3, 31 * 86400
-- part: room_log
-- part: room_state
-- part: room_pins
local log, answers, published = open_log(run_key, log_key, events_key, fresh), {}, {}
local written = {} -- the keys beside the log's own that this batch wrote to

local function emit(told, blob, class, fields)
  local event, row = { e = blob, f = fields }, { 'e', blob }
  for name, value in pairs(fields or {}) do
    row[#row + 1], row[#row + 2] = 'f:' .. name, value
  end
  if class == 'logged' then
    log.seq = log.seq + 1
    event.s, written[events_key] = log.seq, true
    redis.call('XADD', events_key, 'MAXLEN', '~', EVENTS_MIN, log.seq .. '-0', unpack(row))
  elseif class == 'chat' then
    log.n = log.n + 1
    event.n, written[messages_key] = log.n, true
    redis.call('XADD', messages_key, 'MAXLEN', '~', MESSAGES_MIN, log.n .. '-0',
      'epoch', log.epoch, unpack(row))
  end
  told[#told + 1], published[#published + 1] = event, event
end

-- Take a pin down, with an event of its own unless the item is that event.
local function take_down(told, product, is_told)
  log.pinned = without(log.pinned, product)
  note_pin(log_key, product, nil)
  if is_told then return end
  emit(told, cmsgpack.pack({ 'product.unpinned', at, { product = product } }), 'logged')
end

local function refusal(item)
  if item.remove and gone(log, log_key, messages_key, item.remove) then return 'not_found' end
  if item.unpin and item.must and not is_pinned(log.pinned, item.unpin) then return 'not_found' end
end

local function carry_out(item)
  local told, blob, left = {}, item.e, {}
  if item.remove then redis.call('XDEL', messages_key, string.match(item.remove, '%d+$') .. '-0') end
  local shown = item.unpin and is_pinned(log.pinned, item.unpin)
  if shown then take_down(told, item.unpin, item.must) end
  if item.pin then log.pinned, left = pin(log.pinned, item.pin, PINNED_MAX) end
  for _, product in ipairs(left) do take_down(told, product) end
  if item.react then
    blob, written[reactions_key] = react(log_key, reactions_key, item.react, at), true
  end
  if item.watch then
    blob, written[viewers_key] = count_viewers(log_key, viewers_key, item.watch, at), true
  end
  if blob then emit(told, blob, item.c, newest(log_key, item.set)) end
  if item.pin then note_pin(log_key, item.pin, log.seq) end
  return { log.epoch, told }
end

-- All is kept for 30 days after the room's last event: told once a day, and to what may be new.
-- Told to everything at each publication it was more than half of what went to disk.
local function keep(day)
  if log.kept == tostring(day) then
    for key in pairs(written) do redis.call('EXPIRE', key, KEPT_S, 'NX') end
    return
  end
  redis.call('HSET', log_key, 'kept', day)
  for i = 2, 6 do redis.call('EXPIRE', KEYS[i], KEPT_S) end
end

for i, item in ipairs(items) do
  local once_key = item.once and KEYS[once_keys + item.once]
  local first = once_key and redis.call('GET', once_key)
  answers[i] = first and cmsgpack.unpack(first) or refusal(item)
  if not answers[i] then
    -- From here on it must succeed.
    answers[i] = carry_out(item)
    if once_key then redis.call('SET', once_key, cmsgpack.pack(answers[i]), 'EX', item.once_s) end
  end
end
redis.call('HSET', log_key, 'seq', log.seq, 'n', log.n, 'pinned', log.pinned)
keep(math.floor(at / 86400000))
if #published > 0 then
  redis.call('SPUBLISH', channel, cmsgpack.pack({ room, log.epoch, published }))
end
return cmsgpack.pack(answers)
