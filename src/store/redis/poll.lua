-- Looks which life a shard is in. After shard.lua, whose keys and arguments it has.
--
-- ARGV[4]  1: a shard that is missing was never used, and nothing is to be learned of it
-- ARGV[5]  1: the caller saw this server's clock step
--
-- Answers {echo, incarnation, 1 while learning, else 0, now}.
local now = server_time()
if ARGV[4] == '1' and redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'n', whole(now), 'r', run_id(), 'b', '0')
end
local incarnation, _, learning = keep_up(now, KEYS[1], tonumber(ARGV[2]))
if ARGV[5] == '1' then redis.call('HSET', KEYS[1], 'b', whole(now)) end
return {ARGV[1], incarnation, learning and 1 or 0, now}
