-- Tell what buyers' orders have taken of pools with a limit, as SQL counts it.
-- Guarantees: a count read at an older place of the ledger never replaces a newer one.
-- Keys: the fence and the stock keys of the partition's epoch (keys.stock).
-- Arguments: epoch, channel, counts: msgpack of [[pool, buyer, seq, units]].
-- Returns: msgpack [word, now]; word ok | shut.
-- Emits: nothing.
-- part: stock_begin
if not open then
  return cmsgpack.pack({'shut', now})
end
-- part: stock_counts
count_taken(cmsgpack.unpack(ARGV[3]))
return cmsgpack.pack({'ok', now})
