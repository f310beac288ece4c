-- Marks reservations as written: their orders are in the database, so they are in flight no longer. Never writes buyers: a cancelled order would come back.
-- KEYS: gate, flight. ARGV: server id, then "MARK:USER" of each purchase. Reply: lost | closed | ok.
local gate = redis.call('HMGET', KEYS[1], 'home', 'open')
if gate[1] ~= ARGV[1] then
  return 'lost'
end
if gate[2] ~= '1' then
  return 'closed'
end
redis.call('ZREM', KEYS[2], unpack(ARGV, 2))
return 'ok'
