-- Takes over the settings of a sale if they are newer. One write, so nothing can stop it halfway.
-- KEYS: gate, flight. ARGV: server id, ver, stock, starts, ends, paused, terms. Reply: lost | closed | ok.
local gate = redis.call('HMGET', KEYS[1], 'home', 'open', 'ver', 'since', 'past', 'seq', 'terms')
if gate[1] ~= ARGV[1] then
  return 'lost'
end
if gate[2] ~= '1' then
  return 'closed'
end
local ver, seq = tonumber(gate[3]), tonumber(gate[6])
if not (ver and seq) then
  return 'lost'
end
if tonumber(ARGV[2]) > ver then
  -- Purchases in flight keep the revision of their click, which revision_at finds by the time they were admitted. So the new
  -- one begins after all of them, also if the clock went back a little since, and those that come get no earlier time.
  -- The last of the set is its sentinel, whose score is above every time.
  local oldest = tonumber(redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2] or math.huge)
  local newest = tonumber(redis.call('ZRANGE', KEYS[2], -2, -2, 'WITHSCORES')[2] or 0)
  local clock = redis.call('TIME')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  local begins = math.max(now, tonumber(gate[4]) or 0, math.min(newest, now + 60000)) + 1
  local past, before = '', nil
  for revision, from in string.gmatch((gate[5] or '') .. gate[3] .. ':' .. (gate[4] or '0') .. ' ', '(%d+):(%d+) ') do
    if before and tonumber(from) > oldest then
      past = past .. before
    end
    before = revision .. ':' .. from .. ' '
  end
  if oldest < math.huge then
    past = past .. (before or '')
  end
  redis.call('HSET', KEYS[1], 'since', string.format('%.0f', begins), 'past', past, 'ver', ARGV[2], 'stock', ARGV[3],
    'starts', ARGV[4], 'ends', ARGV[5], 'paused', ARGV[6], 'terms', ARGV[7], 'seq', string.format('%.0f', seq + 1))
elseif tonumber(ARGV[2]) == ver and gate[7] ~= ARGV[7] then
  -- A program that does not know all terms has opened or changed it.
  redis.call('HSET', KEYS[1], 'terms', ARGV[7])
end
return 'ok'
