-- The head of every script on counters: which life of the store a shard is in, as
-- `domain::shard::Shard`. The rest of a script follows in the same text.
--
-- KEYS[1]  the shard, a hash: `n` its incarnation, `r` the run id of the server that began it, `b`
--          since when (ms) rates before it are unknown, and while it learns `l`, as MessagePack:
--          when that began and ends (ms), {processes listed}, {processes done}
-- ARGV[1]  the call's number on its connection, echoed
-- ARGV[2]  the incarnation that the caller knows
-- ARGV[3]  process, eight bytes
--
-- A script that takes many calls has the shard of each before its other keys, and what the caller
-- knows of it before its other arguments.
--
-- No number here is above 2^53, so that all are exact; the caller sees to it.
local LEARN_MS_MIN, LEARN_MS_MAX, LEARN_ARRIVING_MS_MAX, LEARN_PAUSE_MS = 1000, 5000, 30000, 1000
local max, min, floor = math.max, math.min, math.floor
local pack, cunpack = cmsgpack.pack, cmsgpack.unpack
local run -- Of this server, once it was asked for.

local function whole(number)
  return string.format('%.0f', number)
end

local function server_time()
  local time = redis.call('TIME')
  return time[1] * 1000 + floor(time[2] / 1000)
end

local function is_over(learning, now)
  if learning[2] <= now then return true end
  if #learning[4] == 0 or now < learning[1] + LEARN_MS_MIN then return false end
  local done = {}
  for _, name in ipairs(learning[4]) do done[name] = true end
  for _, name in ipairs(learning[3]) do
    if not done[name] then return false end
  end
  return true
end

local function run_id()
  run = run or string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  return run
end

-- Begins a new life of a shard where writes were lost, ends learning where it is over.
local function keep_up(now, shard, from)
  local stored = redis.call('HMGET', shard, 'n', 'r', 'b', 'l')
  local incarnation, blind = tonumber(stored[1] or '0'), tonumber(stored[3] or '0')
  local learning = stored[4] and {cunpack(stored[4])} or nil
  if stored[2] ~= run_id() or incarnation < from then
    incarnation, blind = max(incarnation, from, now) + 1, now
    learning = {now, now + LEARN_MS_MAX, {}, {}}
    redis.call('HSET', shard, 'n', whole(incarnation), 'r', run_id(), 'b', whole(blind),
      'l', pack(unpack(learning)))
  elseif learning and now < learning[1] then
    -- The clock was set back: what would end far in the future begins again.
    learning[1], learning[2] = now, now + LEARN_MS_MAX
    redis.call('HSET', shard, 'l', pack(unpack(learning)))
  elseif learning and is_over(learning, now) then
    learning = nil
    redis.call('HDEL', shard, 'l')
  end
  return incarnation, blind, learning
end

