-- Hold units for a batch of requests, each all its lines or none.
-- Guarantees: requests are decided in order; a refused one changes nothing; a key that an open
--   hold knows answers that hold again; left never falls below 0; while somebody waits for a
--   pool, nobody but the house (a buyer of '') holds of it here.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, held_ms, placing_ms, requests: msgpack of one list of all requests,
--   each as buyer, room, cart or false, number of lines, and of each line id, pool, sku, drop or
--   false, key, qty, price or false, bucket; a request with a cart is held, one without is
--   placing; its lines are of different pools; a buyer of '' is the house, which has no limits
--   and may take from a drop that is shut.
-- Returns: msgpack [word, now, answers]; word ok | shut | marked; an answer is
--   [ok, then id, qty, price, state, due, bucket or false of each line] | [missing|due|busy
--   |id_reused|not_open|limit_reached, pool] | [price_changed, pool, price]
--   | [sold_out, pool, left, memorable].
-- Emits: [[pool, left, v]] on the channel, once.
-- part: stock_begin
if not open or marked then
  return cmsgpack.pack({marked and 'marked' or 'shut', now, marked})
end
-- part: stock_rows
-- part: stock_gates
-- part: stock_holds
-- part: stock_ends
-- part: stock_pack
-- part: stock_save
-- part: stock_ahead
local held_ms, placing_ms, offering = tonumber(ARGV[3]), tonumber(ARGV[4]), false
-- part: stock_make
-- part: stock_decide
local requests, answers = read_requests(cmsgpack.unpack(ARGV[5])), {}
read_ahead(requests)
for i = 1, #requests do
  answers[i] = decide(requests[i])
end
save()
return list_head[3] .. packed.ok .. packed[now] .. list_head[#answers] .. table.concat(answers)
