-- Msgpack by hand, for what a batch packs often: a table costs cmsgpack two walks over it.
local function memo(make)
  return setmetatable({}, {__index = function(known, value)
    known[value] = make(value)
    return known[value]
  end})
end

local packed = memo(cmsgpack.pack) -- of values that come again and again
local text_head = memo(function(length)
  return string.sub(cmsgpack.pack(string.rep('x', length)), 1, -1 - length)
end)
local list_head = memo(function(count)
  if count < 16 then return string.char(144 + count) end
  return '\220' .. string.char(math.floor(count / 256), count % 256)
end)

local function pack_hold(h)
  local id, buyer, made_by = h[ID], h[BUYER], h[MADE_BY]
  local keys = list_head[#made_by]
  for i = 1, #made_by do
    keys = keys .. text_head[#made_by[i]] .. made_by[i]
  end
  return list_head[16] .. text_head[#id] .. id .. packed[h[POOL]] .. packed[h[SKU]]
    .. packed[h[DROP]] .. text_head[#buyer] .. buyer .. packed[h[ROOM]] .. packed[h[QTY]]
    .. packed[h[PRICE]] .. packed[h[STATE]] .. packed[h[DUE]] .. packed[h[TILL]] .. keys
    .. packed[h[ORDER]] .. packed[h[SHARED]] .. packed[h[COUNTED]]
    .. packed[h[BUCKET] or false]
end
