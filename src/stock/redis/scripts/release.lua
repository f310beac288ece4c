-- Gives back the units of lives that have ended, where the reservation is still theirs.
-- KEYS: gate, buyers, flight. The rate keys are built here, as when units are taken.
-- ARGV: server id, epoch, prefix of the rate keys, then mark, user, the rest of the rate window in ms, and ":CALL" of a late payment
-- (else '') of each life.
-- Reply: lost | closed | another_gate | ok.
local gate = redis.call('HMGET', KEYS[1], 'epoch', 'home', 'open', 'tried', 'seq', 'extra')
if not gate[1] or gate[2] ~= ARGV[1] or redis.call('HGET', KEYS[2], '0') ~= gate[1] then
  return 'lost'
end
-- All checks come before the first write, because Redis does not undo a script. The first write (HDEL, or
-- ZREM) works also when the memory is full, and after it Redis refuses no other.
if gate[3] == '1' and not (redis.call('ZSCORE', KEYS[3], '0') and string.find(gate[5] or '', '^%d+$')
  and string.find(gate[6] or '0', '^%d+$')) then
  return 'lost'
end
if gate[3] ~= '1' then
  return 'closed'
end
if gate[1] ~= ARGV[2] then
  return 'another_gate'
end
local freed, extra, longest = 0, 0, 0
for i = 4, #ARGV, 4 do
  local mark, user, wait = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  if redis.call('HGET', KEYS[2], user) == mark then
    redis.call('HDEL', KEYS[2], user)
    freed = freed + 1
    extra = extra + units_of(mark) - 1
    if wait > 0 then
      -- A slot that moves to another node of a cluster has no room for a new key, and nothing may stop the script here.
      redis.pcall('SET', ARGV[3] .. user, '', 'PX', wait)
      longest = math.max(longest, wait)
    end
  end
  redis.call('ZREM', KEYS[3], mark .. ':' .. user .. ARGV[i + 3])
end
if longest > 0 then
  local clock = redis.call('TIME')
  local rate_keys_until = clock[1] * 1000 + math.floor(clock[2] / 1000) + longest
  redis.call('HSET', KEYS[1], 'tried', math.max(rate_keys_until, tonumber(gate[4]) or 0))
end
if extra > 0 then
  redis.call('HINCRBY', KEYS[1], 'extra', -extra)
end
if freed > 0 then
  redis.call('HINCRBY', KEYS[1], 'seq', 1)
end
return 'ok'
