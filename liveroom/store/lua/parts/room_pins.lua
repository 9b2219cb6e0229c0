-- The pinned products, oldest first, as one text: "p1,p2". Ids hold no comma.
local function without(pinned, product)
  local left = {}
  for id in string.gmatch(pinned, '[^,]+') do
    if id ~= product then left[#left + 1] = id end
  end
  return table.concat(left, ','), left
end

local function is_pinned(pinned, product)
  return string.find(',' .. pinned .. ',', ',' .. product .. ',', 1, true) ~= nil
end

-- The new list, and the products that had to leave for it.
local function pin(pinned, product, most)
  local _, list = without(pinned, product)
  local left = {}
  list[#list + 1] = product
  while #list > most do left[#left + 1] = table.remove(list, 1) end
  return table.concat(list, ','), left
end

-- Keep the seq of the event that pinned a product for as long as it is pinned.
local function note_pin(log_key, product, seq)
  if seq then
    redis.call('HSET', log_key, 'p:' .. product, seq)
  else
    redis.call('HDEL', log_key, 'p:' .. product)
  end
end
