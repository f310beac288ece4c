-- Takes the units of a dead order for a late payment, all or none: sale window, pause and rate do not count.
-- KEYS: gate, buyers, flight. ARGV: server id, user, its mark (ORDER@PAYMENT*UNITS), the mark of the order's first life, the call.
-- Reply: lost | closed | admitted, epoch, 1 by this call or 0 by an earlier one | busy | refused.
local gate = redis.call('HMGET', KEYS[1], 'epoch', 'home', 'open', 'stock', 'extra')
if not gate[1] or gate[2] ~= ARGV[1] or redis.call('HGET', KEYS[2], '0') ~= gate[1] then
  return {'lost'}
end
if gate[3] ~= '1' then
  return {'closed'}
end
local stock, extra = tonumber(gate[4]), tonumber(gate[5] or 0)
if not (stock and extra) then
  return {'lost'}
end
local user, mark, first = ARGV[2], ARGV[3], ARGV[4]
local held = redis.call('HGET', KEYS[2], user)
if held == mark then
  return {'admitted', gate[1], 0}
end
if held and held ~= first then
  -- An id is as long as any other.
  local its_order = string.match(first, '^[^*]+')
  return {string.sub(held, 1, #its_order) == its_order and 'busy' or 'refused'}
end
local units = units_of(mark)
if not held and stock - (redis.call('HLEN', KEYS[2]) - 1) - extra < units then
  return {'refused'}
end
-- Changes nothing, and fails if anything could stop the script between a buyer and what is in flight: see reserve.
if not redis.call('ZADD', KEYS[3], 'XX', 'INCR', '0', '0') then
  return {'lost'}
end
redis.call('HSET', KEYS[2], user, mark)
if held then
  -- The first life is dead, and not released yet: its units go over. That it was in flight says no more than the order's row.
  redis.call('ZREM', KEYS[3], first .. ':' .. user)
elseif units > 1 then
  redis.call('HINCRBY', KEYS[1], 'extra', units - 1)
end
local clock = redis.call('TIME')
redis.call('ZADD', KEYS[3], string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000)),
  mark .. ':' .. user .. ':' .. ARGV[5])
return {'admitted', gate[1], 1}
