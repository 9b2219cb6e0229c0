-- A hold is kept as an array, and these are its places. TILL is the deadline in its cart, false
-- for buy now; MADE_BY the keys of the requests that made it; COUNTED whether a limit counts it;
-- BUCKET what a sale of it is owed to, nil where an older release made it.
local ID, POOL, SKU, DROP, BUYER, ROOM, QTY, PRICE, STATE, DUE, TILL, MADE_BY, ORDER, SHARED,
  COUNTED, BUCKET = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16
