-- Under which revision a purchase was admitted that is in flight.
-- KEYS: gate, flight. ARGV: server id, "MARK:USER". Reply: lost | closed | written | the revision.
local gate = redis.call('HMGET', KEYS[1], 'home', 'open', 'ver', 'since')
if gate[1] ~= ARGV[1] then
  return 'lost'
end
if gate[2] ~= '1' then
  return 'closed'
end
local admitted_at = redis.call('ZSCORE', KEYS[2], ARGV[2])
-- Only a set that has lost nothing can say that a purchase is not in flight.
if not admitted_at and not redis.call('ZSCORE', KEYS[2], '0') then
  return 'lost'
end
return admitted_at and revision_at(admitted_at, KEYS[1], gate[3], gate[4]) or 'written'
