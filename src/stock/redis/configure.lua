-- Takes over the terms of a sale if they are newer.
-- KEYS: gate. ARGV: home, ver, stock, starts, ends, paused. Reply: lost | closed | ok.
local gate = redis.call('HMGET', KEYS[1], 'home', 'open', 'ver')
if gate[1] ~= ARGV[1] then
  return 'lost'
end
if gate[2] ~= '1' then
  return 'closed'
end
if tonumber(ARGV[2]) > tonumber(gate[3]) then
  redis.call('HSET', KEYS[1], 'ver', ARGV[2], 'stock', ARGV[3], 'starts', ARGV[4], 'ends', ARGV[5], 'paused', ARGV[6])
  redis.call('HINCRBY', KEYS[1], 'seq', 1)
end
return 'ok'
