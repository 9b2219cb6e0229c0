-- Whether this server may forget by itself, and which partitions of the stock it has open.
-- Guarantees: changes nothing.
-- Keys: the fence and the gates of each partition, under the epoch it is asked for.
-- Arguments: the epoch of each partition.
-- Returns: msgpack [run id, maxmemory-policy, evicted keys, [open]]; open is false where the
--   partition is shut under that epoch, or its gates' key is gone.
-- Emits: nothing.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local policy = string.match(redis.call('INFO', 'memory'), 'maxmemory_policy:([%w-]+)')
local evicted = string.match(redis.call('INFO', 'stats'), 'evicted_keys:(%d+)')
local open = {}
for i = 1, #KEYS / 2 do
  local fence = redis.call('HMGET', KEYS[2 * i - 1], 'epoch', 'run')
  open[i] = tonumber(fence[1]) == tonumber(ARGV[i]) and fence[2] == run
    and redis.call('HEXISTS', KEYS[2 * i], '#') == 1
end
return cmsgpack.pack({run, policy or 'noeviction', tonumber(evicted), open})
