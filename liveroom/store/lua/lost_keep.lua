-- Keep cart lines that a rebuild has ended, for when their buyer comes back.
--
-- Guarantees: a line is kept once, however often it is given; no more than so many are kept.
-- Keys: lost
-- Arguments: for how long in ms, how many at most, the lines or the word `any` (packed, each a string)
-- Returns: how many are kept now
-- Emits: nothing
local lost, lasts_ms, most = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
for _, line in ipairs(cmsgpack.unpack(ARGV[3])) do
  if redis.call('SCARD', lost) >= most then break end
  redis.call('SADD', lost, line)
end
if redis.call('PTTL', lost) < lasts_ms then redis.call('PEXPIRE', lost, lasts_ms) end
return redis.call('SCARD', lost)
