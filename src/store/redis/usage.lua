-- Reads a quota counter; changes nothing.
--
-- KEYS[1]  the counter, as in quota.lua
-- ARGV[1]  the call's number on its connection, echoed
--
-- Answers {echo, now, version, limit, generation, folded}, and for each process {its eight bytes,
-- q0, q, g, r, s, d} behind it; or {echo, now} if the counter was never used.
local time = redis.call('TIME')
local answer = {ARGV[1], time[1] * 1000 + math.floor(time[2] / 1000)}
local head = redis.call('HGET', KEYS[1], 'h')
if not head then
  return answer
end
local function add(packed, count)
  local values = {cmsgpack.unpack(packed)}
  for i = 1, count do
    answer[#answer + 1] = values[i]
  end
end
add(head, 4)
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
  if #stored[i] == 8 then
    answer[#answer + 1] = stored[i]
    add(stored[i + 1], 6)
  end
end
return answer
