-- Notes products of which something is in flight, or will be in a moment.
-- KEYS: the index. ARGV: how long an entry counts in ms, the server id if every gate has just been looked at (else ''), then
-- products. Reply: ok.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'zset' and kind ~= 'none' then
  redis.call('DEL', KEYS[1])
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
for n = 3, #ARGV do
  redis.call('ZADD', KEYS[1], now, ARGV[n])
end
if ARGV[2] ~= '' then
  -- This sweep has just noted all that is in flight, so entries that it did not renew and that are old go. A purchase
  -- that was admitted after the sweep looked has a young entry, noted beside its publish. If that note failed, the entry may be
  -- missing until the next sweep.
  redis.call('ZADD', KEYS[1], now, '@' .. ARGV[2])
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])) do
    redis.call('ZREM', KEYS[1], old)
  end
end
return 'ok'
