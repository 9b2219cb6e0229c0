-- Take in [[pool, buyer, seq, units]]: an older count never replaces a newer one.
local function count_taken(counts)
  for from = 1, #counts, 1000 do
    local fields, set = {}, {}
    for i = from, math.min(from + 999, #counts) do
      fields[#fields + 1] = counts[i][1] .. '/' .. counts[i][2]
    end
    for i, packed in ipairs(redis.call('HMGET', taken_key, unpack(fields))) do
      local seq, units = counts[from + i - 1][3], counts[from + i - 1][4]
      if not packed or cmsgpack.unpack(packed)[1] < seq then
        set[#set + 1] = fields[i]
        set[#set + 1] = cmsgpack.pack({seq, units})
      end
    end
    if #set > 0 then
      redis.call('HSET', taken_key, unpack(set))
    end
  end
end
