-- One message of a room, by its id.
--
-- Guarantees: what was removed, and what was never said, is `not_found`.
-- Keys: run, log, events, messages, removal (what was published for it, if it was removed)
-- Arguments: fresh epoch, message
-- Returns: the message's entry; nil where newer ones have pushed it out
-- Emits: nothing
local run_key, log_key, events_key, messages_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local removal_key, fresh, message = KEYS[5], ARGV[1], ARGV[2]
-- part: room_log
local log = open_log(run_key, log_key, events_key, fresh)
if redis.call('EXISTS', removal_key) == 1 or gone(log, log_key, messages_key, message) then
  return { err = 'not_found' }
end
local n = string.match(message, '%d+$')
return redis.call('XRANGE', messages_key, n .. '-0', n .. '-0')[1]
