-- Opens the closed gate of an epoch with the staged buyers, in one step whatever their number.
-- KEYS: gate, buyers, flight, staging. ARGV: server id, epoch, ver, stock, starts, ends, paused, terms,
-- units of the staged buyers beyond one each. Reply: lost | another_gate | ok.
local gate = redis.call('HMGET', KEYS[1], 'epoch', 'home', 'open', 'seq')
if gate[1] ~= ARGV[2] or gate[3] ~= '0' then
  -- Another has opened it, or begun anew: nobody will use these buyers.
  redis.call('UNLINK', KEYS[4])
  return 'another_gate'
end
if gate[2] ~= ARGV[1] or redis.call('HGET', KEYS[4], '0') ~= ARGV[2] then
  return 'lost'
end
redis.call('RENAME', KEYS[4], KEYS[2])
redis.call('PERSIST', KEYS[2])
redis.call('DEL', KEYS[3])
-- A sentinel: without it nobody could tell an empty set from a lost one. Its score is above every time.
redis.call('ZADD', KEYS[3], '+inf', '0')
redis.call('HDEL', KEYS[1], 'since', 'past')
redis.call('PERSIST', KEYS[1])
-- Last, and in one write: a gate that was stopped halfway is still closed.
redis.call('HSET', KEYS[1], 'open', '1', 'ver', ARGV[3], 'stock', ARGV[4], 'starts', ARGV[5], 'ends', ARGV[6], 'paused', ARGV[7],
  'terms', ARGV[8], 'extra', ARGV[9], 'seq', string.format('%.0f', (tonumber(gate[4]) or 0) + 1))
return 'ok'
