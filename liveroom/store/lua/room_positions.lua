-- Where the logs of rooms of one partition stand.
--
-- Guarantees: as room_read.
-- Keys: run, then log, events of each room
-- Arguments: a fresh epoch for each room
-- Returns: epoch, seq of each room, in one list
-- Emits: nothing
local found = {}
-- part: room_log
for i, fresh in ipairs(ARGV) do
  local log = open_log(KEYS[1], KEYS[2 * i], KEYS[2 * i + 1], fresh)
  found[2 * i - 1], found[2 * i] = log.epoch, log.seq
end
return found
