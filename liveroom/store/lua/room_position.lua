-- A room's position, and the logged events since one.
--
-- Guarantees: as room_read. The events are those of the position's epoch: a caller whose
--   epoch differs gets none.
-- Keys: run, log, events
-- Arguments: fresh epoch, the caller's epoch, its seq, how many events at most (0: none)
-- Returns: epoch, seq, events oldest first
-- Emits: nothing
local run_key, log_key, events_key = KEYS[1], KEYS[2], KEYS[3]
local fresh, epoch, seq, events_max = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
-- part: room_log
local log = open_log(run_key, log_key, events_key, fresh)
local events = {}
if events_max > 0 and epoch == log.epoch then
  local from = string.format('%.0f-0', seq + 1)
  events = redis.call('XRANGE', events_key, from, '+', 'COUNT', events_max)
end
return { log.epoch, log.seq, events }
