local fence_key, gates_key, holds_key, known_key, due_key, placing_key, taken_key, holding_key,
  parked_key, carts_key, ended_key = unpack(KEYS)
local epoch, channel = tonumber(ARGV[1]), ARGV[2]

local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local fence = redis.call('HMGET', fence_key, 'epoch', 'run', 'mark')
local open = tonumber(fence[1]) == epoch and fence[2] == run
local marked = open and fence[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
