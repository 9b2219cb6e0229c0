-- A room's position, and the logged events since one.
--
-- Guarantees: as room_read. The events are those of the position's epoch: a caller whose
--   epoch differs gets none.
-- Keys: run, log, events
-- Arguments: fresh epoch, the caller's epoch, its seq, how many events at most (0: none), after
--   how many bytes no more of them are read; the first one is
-- Returns: epoch, seq, events oldest first, 1 where their bytes were what ended them
-- Emits: nothing
local run_key, log_key, events_key = KEYS[1], KEYS[2], KEYS[3]
local fresh, epoch, seq, events_max = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local bytes_max, STEP = tonumber(ARGV[5]), 8
-- part: room_log
local log = open_log(run_key, log_key, events_key, fresh)
local events, bytes, more = {}, 0, epoch == log.epoch and seq < log.seq
while more and #events < events_max do
  local from, count = string.format('%.0f-0', seq + 1), math.min(STEP, events_max - #events)
  local some = redis.call('XRANGE', events_key, from, '+', 'COUNT', count)
  more = #some == count
  for _, event in ipairs(some) do
    if bytes >= bytes_max then return { log.epoch, log.seq, events, 1 } end
    seq = tonumber(string.match(event[1], '^%d+'))
    events[#events + 1] = event
    for _, part in ipairs(event[2]) do bytes = bytes + #part end
  end
end
return { log.epoch, log.seq, events, 0 }
