-- Takes a unit for each purchase that may have one. Checks everything that can refuse them all before it writes.
-- KEYS: gate, buyers, flight. The rate keys are built here: they share the product's hash tag, so its slot.
-- ARGV: home, prefix of the rate keys, rate window in ms, then user and order of each purchase.
-- Reply: lost | closed | not_started, time | ended | paused | open, epoch, then for each purchase:
--        0 taken, -1 sold out, N > 0 rate limited for N ms, or "ORDER+" (held, in flight) or "ORDER-" (held).
local gate = redis.call('HMGET', KEYS[1], 'epoch', 'home', 'open', 'stock', 'starts', 'ends', 'paused')
local epoch = gate[1]
if not epoch or gate[2] ~= ARGV[1] or redis.call('HGET', KEYS[2], '0') ~= epoch then
  return {'lost'}
end
if gate[3] ~= '1' then
  return {'closed'}
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if now < tonumber(gate[5]) then
  return {'not_started', gate[5]}
end
if gate[6] ~= '' and now >= tonumber(gate[6]) then
  return {'ended'}
end
if gate[7] == '1' then
  return {'paused'}
end
local left = tonumber(gate[4]) - (redis.call('HLEN', KEYS[2]) - 1)
local reply = {'open', epoch}
for i = 4, #ARGV, 2 do
  local user, order = ARGV[i], ARGV[i + 1]
  local held = redis.call('HGET', KEYS[2], user)
  local answer
  if held == order then
    answer = 0
  elseif held then
    local in_flight = redis.call('ZSCORE', KEYS[3], held .. ':' .. user)
    answer = held .. (in_flight and '+' or '-')
  else
    local rate = ARGV[2] .. user
    if not redis.call('SET', rate, '', 'PX', ARGV[3], 'NX') then
      answer = math.max(1, redis.call('PTTL', rate))
    elseif left <= 0 then
      answer = -1
    else
      redis.call('HSET', KEYS[2], user, order)
      redis.call('ZADD', KEYS[3], now, order .. ':' .. user)
      left = left - 1
      answer = 0
    end
  end
  reply[#reply + 1] = answer
end
return reply
