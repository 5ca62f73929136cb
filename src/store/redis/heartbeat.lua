-- Notes that a gateway lives or ends, and tells of all that spoke lately.
--
-- KEYS[1]  when each gateway last spoke, a sorted set: process (eight bytes), ms since 1970
-- KEYS[2]  what it said, a hash: process to the last commit it enforces, a blank, its name
-- ARGV[1]  the call's number on its connection, echoed
-- ARGV[2]  process
-- ARGV[3]  what it says; empty: it ends
-- ARGV[4]  for how many ms the silent are kept
-- ARGV[5]  how many are told of at most
--
-- Answers {echo, process, ms of silence, what it said, process...}, the last to speak first.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local text = string.format('%.0f', now)

for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[4])) do
  redis.call('ZREM', KEYS[1], gone)
  redis.call('HDEL', KEYS[2], gone)
end
-- If the clock was set back, nobody has spoken later than now.
for _, ahead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. text, '+inf')) do
  redis.call('ZADD', KEYS[1], text, ahead)
end
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[1], ARGV[2])
  redis.call('HDEL', KEYS[2], ARGV[2])
else
  redis.call('ZADD', KEYS[1], text, ARGV[2])
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
end

local spoke = redis.call('ZREVRANGE', KEYS[1], 0, ARGV[5] - 1, 'WITHSCORES')
local answer = {ARGV[1]}
for i = 1, #spoke, 2 do
  answer[#answer + 1] = spoke[i]
  answer[#answer + 1] = now - tonumber(spoke[i + 1])
  answer[#answer + 1] = redis.call('HGET', KEYS[2], spoke[i]) or ''
end
return answer
