-- Reads a quota counter; changes nothing.
--
-- KEYS[1]  the counter, as in quota.lua
-- ARGV[1]  the call's number on its connection, echoed
--
-- Answers {echo, spent, held, remaining}, or {echo} if the counter was never used.
local max = math.max
local stored = redis.call('HGETALL', KEYS[1])
if #stored == 0 then
  return {ARGV[1]}
end
local limit, spent, held, taken = 0, 0, 0, 0
for i = 1, #stored, 2 do
  if stored[i] == 'h' then
    local _, newest, _, folded = cmsgpack.unpack(stored[i + 1])
    limit, spent, taken = newest, spent + folded, taken + folded
  else
    local _, _, g, r, s, d = cmsgpack.unpack(stored[i + 1])
    local kept = max(0, g - r)
    taken = taken + kept + d
    spent = spent + s + d
    held = held + max(0, kept - s)
  end
end
return {ARGV[1], spent, held, max(0, limit - taken)}
