-- One call on a rate counter: the sliding log of leases, as `domain::ratelog::RateLog::reserve`.
-- After shard.lua, whose keys and arguments it has.
--
-- KEYS[2]  the log, a string of four MessagePack values: the time of writing (`base`, in ms since
--          1970); {process, last q, when}...; {process, q, expiry, units}...; and closed units as
--          one list (leaves, units, leaves, units...), ascending. All times are relative to base.
-- KEYS[3]  after a loss, what is told of it, a hash: per process MessagePack of (leaves, units...)
-- ARGV[4]  empty: this server's TIME counts. Tests say another time here.
-- ARGV[5]  q, the call's number among all calls of the process; 0 only reads
-- ARGV[6,7]  the rate: requests, and the window they are counted in, in ms
-- ARGV[8-10] want, need, least
-- ARGV[11] validity of the opened lease, in ms
-- ARGV[12] 1: the caller saw this server's clock step
-- ARGV[13..] closed leases, three numbers each: q, units spent, ms since the last was spent
--
-- Answers {echo, now, incarnation, granted, free, wait in ms, reset in ms}.
local SINGLE_MAX = 64 -- Up to this rate leaving times are not rounded.
local LOG_STEPS = 128
local LONG_MS = 60000 -- Rates of a longer window are told after a loss, and not blind.
local LATE_MS = 10000 -- The longest a call may be on its way: for so long an idle log is kept.
local SILENT_MS = 3600000 -- A process that has not called for an hour is over.

local process = ARGV[3]
local now = server_time()
local incarnation, blind, learning = keep_up(now, KEYS[1], tonumber(ARGV[2]))
if ARGV[12] == '1' then
  blind = now
  redis.call('HSET', KEYS[1], 'b', whole(now))
end
now = tonumber(ARGV[4]) or now
local q = tonumber(ARGV[5])
local requests, per = tonumber(ARGV[6]), tonumber(ARGV[7])
local tail = per + max(5, floor(per / 1000))
local spare = max(floor(per / 4), 20) -- The longest that a lease is valid.

-- What still counts.
local calls, open, closed = {}, {}, {}
local used, newest = 0, nil
local stored = redis.call('GET', KEYS[2])
if stored then
  local base, callers, leases, left = cunpack(stored)
  for _, caller in ipairs(callers) do
    caller[3] = caller[3] + base
    if caller[1] == process then
      newest = caller
      calls[#calls + 1] = caller
    elseif now - SILENT_MS < caller[3] then
      calls[#calls + 1] = caller
    end
  end
  for _, lease in ipairs(leases) do
    -- Later than now it only is when this server's clock was set back: then it waits no longer.
    lease[3] = min(lease[3] + base, now + max(spare, LATE_MS))
    if now < lease[3] + tail then
      open[#open + 1] = lease
      used = used + lease[4]
    end
  end
  for i = 1, #left, 2 do
    local leaves = min(left[i] + base, now + tail + spare)
    if now < leaves then
      closed[#closed + 1] = leaves
      closed[#closed + 1] = left[i + 1]
      used = used + left[i + 1]
    end
  end
end

-- What processes told after a loss: at each instant to come the log counts what it counted or what
-- was told, whichever is more. Open leases are among it, and so closed.
local retold = LONG_MS < per and not learning and redis.call('EXISTS', KEYS[3]) == 1
if retold then
  local known, instants = {}, {}
  local function add(leaves, units, place)
    if not known[leaves] then
      known[leaves] = {0, 0}
      instants[#instants + 1] = leaves
    end
    known[leaves][place] = known[leaves][place] + units
  end
  for i = 1, #closed, 2 do add(closed[i], closed[i + 1], 1) end
  for _, lease in ipairs(open) do add(lease[3] + tail, lease[4], 1) end
  local told = redis.call('HVALS', KEYS[3])
  for _, packed in ipairs(told) do
    local pairs_told = cunpack(packed)
    for i = 1, #pairs_told, 2 do
      if now < pairs_told[i] then add(pairs_told[i], pairs_told[i + 1], 2) end
    end
  end
  table.sort(instants)
  open, closed, used = {}, {}, 0
  local here, there, leaving = 0, 0, {}
  for i = #instants, 1, -1 do
    local units = known[instants[i]]
    here, there = here + units[1], there + units[2]
    if used < max(here, there) then
      leaving[#leaving + 1] = {instants[i], max(here, there) - used}
    end
    used = max(here, there)
  end
  for i = #leaving, 1, -1 do
    closed[#closed + 1], closed[#closed + 2] = leaving[i][1], leaving[i][2]
  end
end

-- Units of a closed lease, into their place by leaving time: mostly the last.
local function count(leaves, units)
  local i = #closed - 1
  while 1 <= i and leaves < closed[i] do
    i = i - 2
  end
  if 1 <= i and closed[i] == leaves then
    closed[i + 1] = closed[i + 1] + units
  else
    table.insert(closed, i + 2, leaves)
    table.insert(closed, i + 3, units)
  end
  used = used + units
end

local function close(lease_q, spent, age)
  for i, lease in ipairs(open) do
    if lease[1] == process and lease[2] == lease_q then
      table.remove(open, i)
      used = used - lease[4]
      local units = min(spent, lease[4])
      local leaves = min(lease[3], max(0, now - age)) + tail
      if SINGLE_MAX < requests then
        local step = max(1, floor(per / LOG_STEPS))
        local over = leaves % step
        if 0 < over then leaves = leaves + step - over end
      end
      if 0 < units then count(leaves, units) end
      return
    end
  end
end

local repeated = q == 0 or newest and q <= newest[2]
if not repeated then
  if newest then
    newest[2], newest[3] = q, now
  else
    calls[#calls + 1] = {process, q, now}
  end
  for i = 13, #ARGV, 3 do
    close(tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]))
  end
end

local least = tonumber(ARGV[10])
local free, granted = max(0, requests - used), 0
-- After a loss nobody knows what counts: nothing is free until all of it must have left. A lease
-- may be spent from for a quarter of the window.
local unseen = blind + tail + spare - now
if LONG_MS < per then unseen = learning and max(1, learning[2] - now) or 0 end
if 0 < unseen then free = 0 end
if not repeated and least <= free and 0 < free then
  granted = min(free, max(tonumber(ARGV[9]), tonumber(ARGV[8])))
end
if 0 < granted then
  open[#open + 1] = {process, q, now + tonumber(ARGV[11]), granted}
  free = free - granted
end

-- When everything has left, and when enough has.
local last = 0
if 0 < #closed then last = closed[#closed - 1] end
for _, lease in ipairs(open) do
  last = max(last, lease[3] + tail)
end
local reset, wait = max(0, last - now), 0
local target = max(1, least)
if free < target then
  table.sort(open, function(a, b) return a[3] < b[3] end)
  wait = reset
  local freed, i, j = free, 1, 1
  while closed[i] or open[j] do
    local leaves, units
    if closed[i] and (not open[j] or closed[i] <= open[j][3] + tail) then
      leaves, units, i = closed[i], closed[i + 1], i + 2
    else
      leaves, units, j = open[j][3] + tail, open[j][4], j + 1
    end
    freed = freed + units
    if target <= freed then
      wait = max(0, leaves - now)
      break
    end
  end
end

wait, reset = max(wait, unseen), max(reset, unseen)
-- Soon more is known.
if LONG_MS < per and learning then wait = unseen end

if not repeated then
  if retold then redis.call('DEL', KEYS[3]) end
  for _, caller in ipairs(calls) do caller[3] = caller[3] - now end
  for _, lease in ipairs(open) do lease[3] = lease[3] - now end
  for i = 1, #closed, 2 do closed[i] = closed[i] - now end
  redis.call('SET', KEYS[2], pack(now, calls, open, closed),
    'PX', whole(reset + LATE_MS))
end
return {ARGV[1], now, incarnation, granted, free, wait, reset}
