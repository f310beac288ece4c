-- Writes a closed gate of an epoch over nothing, over an older one, or over what is no gate at all.
-- KEYS: gate, buyers, flight; and addresses, if the product was just made. ARGV: server id, epoch, lifetime of a closed gate in ms. Reply: ok | another_gate.
local epoch
if redis.call('TYPE', KEYS[1]).ok == 'hash' then
  epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch'))
end
if epoch and epoch > tonumber(ARGV[2]) then
  return 'another_gate'
end
if not epoch or epoch < tonumber(ARGV[2]) then
  -- Of whatever type they are. Stopped after this, the gate is lost, which closes it as well.
  redis.call('DEL', unpack(KEYS))
  redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'home', ARGV[1], 'open', '0', 'seq', '0')
  -- One that nobody opens, because its sale has ended meanwhile, goes away by itself. Install takes this back.
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 'ok'
