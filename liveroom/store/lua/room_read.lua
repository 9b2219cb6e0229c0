-- A room's state as it stands, with its position.
--
-- Guarantees: the position is of a log that nothing was lost of; where that cannot be said,
--   a new epoch has begun. One step, so state and position belong together.
-- Keys: run, log, events, messages, reactions, viewers
-- Arguments: fresh epoch, how many messages
-- Returns: epoch, seq, n, log hash (flat), messages newest first, reactions (flat)
-- Emits: nothing
local run_key, log_key, events_key, messages_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local reactions_key = KEYS[5]
local fresh, messages_max = ARGV[1], ARGV[2]
-- part: room_log
local log = open_log(run_key, log_key, events_key, fresh)
return {
  log.epoch, log.seq, log.n,
  redis.call('HGETALL', log_key),
  redis.call('XREVRANGE', messages_key, '+', '-', 'COUNT', messages_max),
  redis.call('HGETALL', reactions_key),
}
