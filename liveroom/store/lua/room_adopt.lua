-- Take a partition's logs over into this run of the server.
--
-- Guarantees: only logs of the run that ended as planned go on; any others begin anew.
-- Keys: run
-- Arguments: run id of the run that ended as planned
-- Returns: 1 where logs were taken over, else 0
-- Emits: nothing
local run_key, before = KEYS[1], ARGV[1]
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if redis.call('HGET', run_key, 'run') ~= before then return 0 end
-- From here on it must succeed.
redis.call('HSET', run_key, 'run', run)
return 1
