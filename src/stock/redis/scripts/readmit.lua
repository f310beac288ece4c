-- Gives units to purchases that were promised and set aside, under their own order ids: sale window, pause and rate do not count.
-- KEYS: gate, buyers, flight. ARGV: server id, then user and mark of each purchase.
-- Reply: lost | closed | open, epoch, then for each: 0 it holds a unit now, -1 too few remain, or the other MARK that the user holds.
local gate = redis.call('HMGET', KEYS[1], 'epoch', 'home', 'open', 'stock', 'extra')
if not gate[1] or gate[2] ~= ARGV[1] or redis.call('HGET', KEYS[2], '0') ~= gate[1] then
  return {'lost'}
end
if gate[3] ~= '1' then
  return {'closed'}
end
-- Changes nothing, and fails if anything could stop the script between a buyer and what is in flight: see reserve.
if not (tonumber(gate[4]) and tonumber(gate[5] or 0) and redis.call('ZADD', KEYS[3], 'XX', 'INCR', '0', '0')) then
  return {'lost'}
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local remaining = tonumber(gate[4]) - (redis.call('HLEN', KEYS[2]) - 1) - tonumber(gate[5] or 0)
local extra = 0
local reply = {'open', gate[1]}
for i = 2, #ARGV, 2 do
  local user, mark = ARGV[i], ARGV[i + 1]
  local held = redis.call('HGET', KEYS[2], user)
  local answer = 0
  if held and held ~= mark then
    answer = held
  elseif not held and remaining < units_of(mark) then
    answer = -1
  elseif not held then
    redis.call('HSET', KEYS[2], user, mark)
    redis.call('ZADD', KEYS[3], string.format('%.0f', now), mark .. ':' .. user)
    remaining = remaining - units_of(mark)
    extra = extra + units_of(mark) - 1
  end
  reply[#reply + 1] = answer
end
if extra > 0 then
  redis.call('HINCRBY', KEYS[1], 'extra', extra)
end
return reply
