-- Writes a closed gate of an epoch over nothing or over an older one.
-- KEYS: gate, buyers, flight. ARGV: home, epoch. Reply: ok | superseded.
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch and tonumber(epoch) > tonumber(ARGV[2]) then
  return 'superseded'
end
if not epoch or tonumber(epoch) < tonumber(ARGV[2]) then
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
  redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'home', ARGV[1], 'open', '0', 'seq', '0')
end
return 'ok'
