-- Lists what was reserved long ago and is still in flight, the oldest first.
-- KEYS: gate, buyers, flight. ARGV: server id, age in ms, number.
-- Reply: lost | closed | open, epoch, then "MARK:USER" and the revision of the click each; of a late payment "MARK:USER:CALL", and
-- a revision that says nothing.
local gate = redis.call('HMGET', KEYS[1], 'epoch', 'home', 'open', 'ver', 'since')
if not gate[1] or gate[2] ~= ARGV[1] or redis.call('HGET', KEYS[2], '0') ~= gate[1] then
  return {'lost'}
end
if gate[3] ~= '1' then
  return {'closed'}
end
if not redis.call('ZSCORE', KEYS[3], '0') then
  return {'lost'}
end
local clock = redis.call('TIME')
-- No purchase is admitted before the revision began, see revision_at.
local now = math.max(clock[1] * 1000 + math.floor(clock[2] / 1000), tonumber(gate[5]) or 0)
local before = now - ARGV[2]
local reply = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', before, 'WITHSCORES', 'LIMIT', 0, ARGV[3])
for n = 2, #reply, 2 do
  reply[n] = revision_at(reply[n], KEYS[1], gate[4], gate[5])
end
table.insert(reply, 1, gate[1])
table.insert(reply, 1, 'open')
return reply
