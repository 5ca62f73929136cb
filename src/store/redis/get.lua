-- Reads one record, or the generation: a GET whose answer can be told from another's.
--
-- KEYS[1]  a string
-- ARGV[1]  the call's number on its connection, echoed
--
-- Answers {echo, string or nil}.
return {ARGV[1], redis.call('GET', KEYS[1])}
