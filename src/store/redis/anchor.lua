-- When rolling periods of subjects began: the first who asks sets it. After shard.lua.
--
-- KEYS[1,3..]  per subject: its shard
-- KEYS[2,4..]  the instant, in ms since 1970
-- ARGV[1]      the call's number on its connection, echoed
-- ARGV[2,4..]  per subject: the incarnation that the caller knows
-- ARGV[3,5..]  the instant to set; empty: now
--
-- Answers {echo} and per subject {0, instant}, or {1, incarnation}: LEARN.
local now = server_time()
local answer = {ARGV[1]}
for i = 1, #KEYS, 2 do
  local known, begun = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local incarnation, _, learning = keep_up(now, KEYS[i], known)
  if learning or known < incarnation then
    answer[i + 1], answer[i + 2] = 1, incarnation
  else
    redis.call('SET', KEYS[i + 1], whole(begun or now), 'NX')
    answer[i + 1], answer[i + 2] = 0, tonumber(redis.call('GET', KEYS[i + 1]))
  end
end
return answer
