-- Lists records of one kind in order of their ids.
--
-- KEYS[1]  the ids, as in commit.lua
-- KEYS[2]  the beginning of the name of each record of this kind; its id follows. All of them
--          carry the tag of this key, and so lie in its slot. Without it ids are all there is.
-- ARGV[1]  the call's number on its connection, echoed
-- ARGV[2,3]  from and to, as ZRANGEBYLEX takes them
-- ARGV[4]  how many at most
--
-- Answers {echo, id, record, id, record...}, or {echo, id, id...}.
local ids = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])
local answer = {ARGV[1]}
for _, id in ipairs(ids) do
  answer[#answer + 1] = id
  if KEYS[2] then answer[#answer + 1] = redis.call('GET', KEYS[2] .. id) end
end
return answer
