-- Goes before the scripts that need it. The units of a mark, which ends with `*UNITS` unless it has a single one.
local function units_of(mark)
  return tonumber(string.match(mark, '%*(%d+)$')) or 1
end
