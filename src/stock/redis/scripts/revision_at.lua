-- Goes before the scripts that need it. The revision under which a purchase was admitted that has this score in `flight`.
-- No purchase carries it: the gate notes since when it has had its revision (`since`; absent: ever) and, as long as there are
-- purchases of them in flight, when earlier ones began (`past`: "REVISION:SINCE " each, the oldest first).
local past
local function revision_at(score, gate_key, ver, since)
  -- What is no number there must not stop a script: `since` counts as ever then.
  if not since or tonumber(score) >= (tonumber(since) or 0) then
    return ver
  end
  past = past or redis.call('HGET', gate_key, 'past') or ''
  local found
  for revision, from in string.gmatch(past, '(%d+):(%d+) ') do
    if not found or tonumber(score) >= tonumber(from) then
      found = revision
    end
  end
  return found or ver
end
