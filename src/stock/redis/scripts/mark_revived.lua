-- Marks the reservation of a late payment as revived: its order is live again in the database, so this call is in flight no longer.
-- KEYS: gate, flight. ARGV: server id, epoch, "MARK:USER:CALL". Reply: lost | closed | another_gate | ok.
local gate = redis.call('HMGET', KEYS[1], 'epoch', 'home', 'open')
if gate[2] ~= ARGV[1] then
  return 'lost'
end
if gate[3] ~= '1' then
  return 'closed'
end
if gate[1] ~= ARGV[2] then
  return 'another_gate'
end
redis.call('ZREM', KEYS[2], ARGV[3])
return 'ok'
