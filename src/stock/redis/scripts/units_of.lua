-- Goes before the scripts that need it. The units of a mark: `ORDER*UNITS`, or `ORDER` for a single one.
local function units_of(mark)
  return tonumber(string.match(mark, '%*(%d+)$')) or 1
end
