-- Notes that orders are in the database. Never writes buyers: a cancelled order would come back.
-- KEYS: gate, flight. ARGV: home, then order and user of each purchase. Reply: lost | closed | ok.
local gate = redis.call('HMGET', KEYS[1], 'home', 'open')
if gate[1] ~= ARGV[1] then
  return 'lost'
end
if gate[2] ~= '1' then
  return 'closed'
end
for i = 2, #ARGV, 2 do
  redis.call('ZREM', KEYS[2], ARGV[i] .. ':' .. ARGV[i + 1])
end
return 'ok'
