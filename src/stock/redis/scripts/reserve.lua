-- Takes the units of each purchase that may have them. Everything that can refuse them all is checked before a unit is taken. Rate
-- keys of those who get nothing may have been set by then.
-- KEYS: gate, buyers, flight, and addresses if they are given. The rate keys are built here: they share the product's hash tag, so
-- its slot.
-- ARGV: server id, prefix of the rate keys, rate window in ms, '1' if somebody wants more than one unit (else ''), then user and
-- mark of each purchase; and its address ('': no limit counts), if KEYS has addresses.
-- Reply, one of these:
--   addresses                             they are needed, for this sale has a limit of an address
--   lost
--   closed
--   not_started, time
--   ended
--   paused
--   taken, epoch, seq, revision, terms    each purchase has got its units
--   open, epoch, seq, revision, terms, and then one of these for each purchase:
--     0                  it has got its units
--     -1 - N             too few remain: N
--     N > 0              rate limited for N ms
--     "most N"           an order may have N units at most
--     "address N"        its address may have N units more, which are fewer than it wants
--     "MARK-"            its buyer holds MARK already, and that is not in flight any more
--     "MARK+REVISION"    its buyer holds MARK already, in flight, reserved under REVISION. MARK is the purchase's own only if this
--                        call is a repeat and REVISION an earlier one
local gate = redis.call('HMGET', KEYS[1], 'epoch', 'home', 'open', 'stock', 'starts', 'ends', 'paused', 'seq', 'tried', 'ver',
  'since', 'extra', 'terms')
local epoch = gate[1]
if not epoch or gate[2] ~= ARGV[1] or redis.call('HGET', KEYS[2], '0') ~= epoch then
  return {'lost'}
end
if gate[3] ~= '1' then
  return {'closed'}
end
local stock, starts, ends = tonumber(gate[4]), tonumber(gate[5]), tonumber(gate[6])
if not (stock and starts and (ends or gate[6] == '') and gate[7] and tonumber(gate[8]) and tonumber(gate[10])
  and tonumber(gate[12] or 0)) then
  return {'lost'}
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if now < starts then
  return {'not_started', gate[5]}
end
if ends and now >= ends then
  return {'ended'}
end
if gate[7] == '1' then
  return {'paused'}
end
-- Few calls, for a call costs more than what it does, and `#` once only, for it searches. A reservation limits the rate as long as
-- it lasts; only those who get nothing need a rate key, one call each. After the time in the field `tried` there is no rate key,
-- so they need not be read.
local each = KEYS[4] and 3 or 2
local count = (#ARGV - 4) / each
local users = {}
for n = 1, count do
  users[n] = ARGV[each * (n - 1) + 5]
end
-- Units that buyers of each address have taken, if there is a limit.
local terms = gate[13] or ''
local limit = string.find(terms, '@', 1, true) and tonumber(string.match(terms, '^' .. gate[10] .. '|.*:@(%d+)$'))
local taken_from, new_from = {}, {}
if limit then
  if each == 2 then
    return {'addresses'}
  end
  local addresses = {}
  for n = 1, count do
    local address = ARGV[3 * n + 4]
    if address ~= '' and not taken_from[address] then
      taken_from[address] = 0
      addresses[#addresses + 1] = address
    end
  end
  if addresses[1] then
    for n, units in ipairs(redis.call('HMGET', KEYS[4], unpack(addresses))) do
      taken_from[addresses[n]] = tonumber(units) or 0
    end
  end
end
local recent = {}
if now < (tonumber(gate[9]) or 0) then
  local rates = {}
  for n = 1, count do
    rates[n] = ARGV[2] .. users[n]
  end
  recent = redis.call('MGET', unpack(rates))
end
local held_by = redis.call('HMGET', KEYS[2], unpack(users))
local remaining = stock - (redis.call('HLEN', KEYS[2]) - 1) - tonumber(gate[12] or 0)
local reply = {'open', epoch, gate[8], gate[10], terms}
local new_buyers, new_in_flight, new, extra = {}, {}, 0, 0
-- Users who got units in this call, with their marks; and those who were refused in it. A second click of a refused user in this
-- call is rate limited, also if it wants fewer units and so many remain.
local marks_of_this_call, refused_in_this_call = {}, {}
-- The units that an order may have. If the gate knows no terms, one.
local most = 1
if ARGV[4] ~= '' then
  most = tonumber(string.match(terms, '^' .. gate[10] .. '|[^:]*:[^:]*:(%d+)')) or 1
end
-- The score of the new purchases. Not before the revision began, see revision_at. A number would be made a text for each of them.
local admitted_now = string.format('%.0f', math.max(now, tonumber(gate[11]) or 0))
local others, refused, whole = false, false, false
for n = 1, count do
  local user, mark = users[n], ARGV[each * (n - 1) + 6]
  local units = ARGV[4] == '' and 1 or units_of(mark)
  local held = marks_of_this_call[user] or held_by[n]
  local address = limit and ARGV[3 * n + 4] or ''
  local share = address == '' and units or math.max(0, limit - taken_from[address])
  local answer = 0
  if held then
    if held ~= mark then
      local admitted_at = marks_of_this_call[user] and admitted_now or redis.call('ZSCORE', KEYS[3], held .. ':' .. user)
      if not admitted_at and not whole then
        -- Only a set that has lost nothing can say that an order is not in flight.
        whole = redis.call('ZSCORE', KEYS[3], '0')
        if not whole then
          return {'lost'}
        end
      end
      answer = admitted_at and held .. '+' .. revision_at(admitted_at, KEYS[1], gate[10], gate[11]) or held .. '-'
    elseif gate[11] and not marks_of_this_call[user] then
      local admitted_at = redis.call('ZSCORE', KEYS[3], held .. ':' .. user)
      local revision = admitted_at and revision_at(admitted_at, KEYS[1], gate[10], gate[11])
      if revision and revision ~= gate[10] then
        answer = held .. '+' .. revision
      end
    end
  elseif units > 1 and units > most then
    answer = 'most ' .. most
  elseif remaining >= units and share >= units and not recent[n] and not refused_in_this_call[user] then
    marks_of_this_call[user] = mark
    new_buyers[new + 1], new_buyers[new + 2] = user, mark
    new_in_flight[new + 1], new_in_flight[new + 2] = admitted_now, mark .. ':' .. user
    new = new + 2
    remaining = remaining - units
    extra = extra + units - 1
    if address ~= '' then
      taken_from[address] = taken_from[address] + units
      new_from[address] = (new_from[address] or 0) + units
    end
  elseif redis.call('SET', ARGV[2] .. user, '', 'PX', ARGV[3], 'NX') then
    refused = true
    refused_in_this_call[user] = true
    answer = remaining >= units and 'address ' .. share or -1 - math.max(0, remaining)
  else
    answer = math.max(1, redis.call('PTTL', ARGV[2] .. user))
  end
  reply[n + 5] = answer
  others = others or answer ~= 0
end
if new > 0 then
  -- A buyer without an entry in flight would hold a unit that nobody gives back, so nothing may stop the script between the two
  -- writes. A full memory, missing replicas, a failing disk and a replica's refusal stop only the first write of a script
  -- (Redis 7: SCRIPT_WRITE_DIRTY). A `flight` of another type or without its sentinel, and a user who may not ZADD, could
  -- stop a later one. So, before a unit is taken, this adds 0 to the score of the sentinel of `flight`. It changes nothing; if it fails,
  -- nothing was taken, and if not, the others succeed. `buyers` was read above, so its type is right.
  if not redis.call('ZADD', KEYS[3], 'XX', 'INCR', '0', '0') then
    return {'lost'}
  end
  redis.call('HSET', KEYS[2], unpack(new_buyers))
  redis.call('ZADD', KEYS[3], unpack(new_in_flight))
  if extra > 0 then
    redis.call('HINCRBY', KEYS[1], 'extra', extra)
  end
  if next(new_from) then
    for address, units in pairs(new_from) do
      redis.call('HINCRBY', KEYS[4], address, units)
    end
    -- It goes by itself, also if the gate is lost and never retired: 75 minutes after the end, or 30 days after the last unit.
    redis.call('PEXPIREAT', KEYS[4], string.format('%.0f', ends and ends + 4500000 or now + 2592000000))
  end
end
if refused then
  redis.call('HSET', KEYS[1], 'tried', now + ARGV[3])
end
if not others then
  return {'taken', epoch, gate[8], gate[10], terms}
end
return reply
