-- Says whether a record is there of a kind that says no more (`Kind::is_bare`).
--
-- KEYS[1]  the ids of the records of its kind, as in commit.lua
-- ARGV[1]  the call's number on its connection, echoed
-- ARGV[2]  its id
--
-- Answers {echo, string or nil}.
return {ARGV[1], redis.call('ZSCORE', KEYS[1], ARGV[2])}
