-- When a subject's rolling periods began: the first who asks sets it. After shard.lua, whose keys
-- and arguments it has.
--
-- KEYS[2]  the instant, in ms since 1970
-- ARGV[4]  the instant to set; empty: now
--
-- Answers {echo, 0, instant}, or {echo, 1, incarnation}: LEARN.
local now = server_time()
local incarnation, _, learning = keep_up(now)
if learning or tonumber(ARGV[2]) < incarnation then
  return {ARGV[1], 1, incarnation}
end
redis.call('SET', KEYS[2], whole(tonumber(ARGV[4]) or now), 'NX')
return {ARGV[1], 0, tonumber(redis.call('GET', KEYS[2]))}
