-- Reads records, or the generation: an MGET whose answer can be told from another's.
--
-- KEYS     strings
-- ARGV[1]  the call's number on its connection, echoed
--
-- Answers {echo, string or nil, ...}.
return {ARGV[1], unpack(redis.call('MGET', unpack(KEYS)))}
