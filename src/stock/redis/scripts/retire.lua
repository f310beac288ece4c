-- Takes away the gate of a sale that is over: by its own settings and this server's clock, and with nothing in flight. So every
-- purchase that it has ever admitted is in the database.
-- KEYS: gate, buyers, flight, addresses. ARGV: server id, epoch, how long ago the sale must have ended in ms.
-- Reply: lost | closed | stays | ok.
local gate = redis.call('HMGET', KEYS[1], 'epoch', 'home', 'open', 'ends')
if not gate[1] or gate[2] ~= ARGV[1] or redis.call('HGET', KEYS[2], '0') ~= gate[1] then
  return 'lost'
end
if gate[3] ~= '1' then
  return 'closed'
end
-- Only a set that has lost nothing can say that nothing is in flight.
if not redis.call('ZSCORE', KEYS[3], '0') then
  return 'lost'
end
local ends, clock = tonumber(gate[4]), redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if gate[1] ~= ARGV[2] or not ends or ends + ARGV[3] > now or redis.call('ZCARD', KEYS[3]) ~= 1 then
  return 'stays'
end
-- Not DEL, which would hold everybody up for as long as it takes to free a million buyers.
redis.call('UNLINK', unpack(KEYS))
return 'ok'
