-- Count an expired hold against its buyer; from so many within a window on, the buyer cools down.
--
-- Guarantees: the window begins with the first; a cool-down that has begun counts anew.
-- Keys: counter, cooling
-- Arguments: how many, window in ms, cool-down in ms
-- Returns: 1 where a cool-down begins, else 0
-- Emits: nothing
local counter, cooling, most = KEYS[1], KEYS[2], tonumber(ARGV[1])
local count = redis.call('INCR', counter)
if count == 1 then redis.call('PEXPIRE', counter, ARGV[2]) end
if count < most then return 0 end
redis.call('DEL', counter)
redis.call('SET', cooling, '', 'PX', ARGV[3])
return 1
