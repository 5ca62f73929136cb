-- Hands out numbers.
--
-- KEYS[1]  the last number handed out
-- ARGV[1]  the call's number on its connection, echoed
-- ARGV[2]  how many
--
-- Answers {echo, the last of them}.
return {ARGV[1], redis.call('INCRBY', KEYS[1], ARGV[2])}
