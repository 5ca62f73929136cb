-- One call on a quota counter: steps 2 to 4 of `reserve`, as `domain::lease::QuotaCounter::reserve`.
--
-- KEYS[1]   the counter, a hash: field `h` holds (version, limit, generation, folded), a field
--           per process (its eight bytes) holds (q0, q, g, r, s, d); both as MessagePack
-- ARGV[1]   the call's number on its connection, echoed
-- ARGV[2,3] start and end of the window in ms since 1970; the end is empty if it never ends
-- ARGV[4]   process, eight bytes
-- ARGV[5-10]  the process's totals: q0, q, g, r, s, d
-- ARGV[11,12] limit, and the generation it is known from
-- ARGV[13-16] want, need, least, live
--
-- Answers {echo, now, what, q0, q, g, r, s, d, remaining, held by others, limit}; `what` is
-- 0: executed or repeated, 1: gone, 2: another window; after 1 and 2 the list ends.
-- No number here is above 2^53, so that all are exact; the caller sees to it.
local KEPT_MS_MAX = 86400000
local CAP_DIVISOR = 20
local max, min, floor = math.max, math.min, math.floor
local unpack, pack = cmsgpack.unpack, cmsgpack.pack

local time = redis.call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)
local from, till = tonumber(ARGV[2]), tonumber(ARGV[3])
if now < from or (till and till <= now) then
  return {ARGV[1], now, 2}
end

local process = ARGV[4]
local q0, q, g = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local r, s, d = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])

local version, limit, generation, folded = 0, 0, 0, 0
local cell = nil
local taken, held = 0, 0 -- By the others.
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
  local name = stored[i]
  if name == 'h' then
    version, limit, generation, folded = unpack(stored[i + 1])
  elseif name == process then
    cell = {unpack(stored[i + 1])}
  else
    local _, _, granted, returned, spent, loc = unpack(stored[i + 1])
    local kept = max(0, granted - returned)
    taken = taken + kept + loc
    held = held + max(0, kept - spent)
  end
end

local function remaining(own)
  local mine = max(0, own[3] - own[4]) + own[6]
  return max(0, limit - folded - taken - mine)
end

local function state(own)
  return {ARGV[1], now, 0, own[1], own[2], own[3], own[4], own[5], own[6],
    remaining(own), held, limit}
end

-- Step 2: is this the process's present use of the counter, an earlier one, or a new one?
if cell and q0 < cell[1] then
  return state(cell)
end
local own = {q0, 0, 0, 0, 0, 0}
if cell and cell[1] == q0 then
  own = cell
end
if own[3] < g then
  return {ARGV[1], now, 1}
end
if own ~= cell and cell then
  folded = folded + max(0, cell[3] - cell[4]) + cell[6]
end
if q <= own[2] then
  return state(own)
end

-- Step 3: what the process reports, and the newest limit.
own[2] = q
own[4] = max(own[4], r)
own[5] = max(own[5], s)
own[6] = max(own[6], d)
if generation <= tonumber(ARGV[12]) then
  generation = tonumber(ARGV[12])
  limit = tonumber(ARGV[11])
end

-- Step 4: the grant.
local rest = remaining(own)
if tonumber(ARGV[15]) <= rest then
  local parts = max(1, tonumber(ARGV[16])) * 2
  local share = (rest - rest % parts) / parts
  if 0 < rest % parts then share = share + 1 end
  if share == 1 then share = 0 end
  local cap = max(0, floor(limit / CAP_DIVISOR) - max(0, max(0, own[3] - own[4]) - own[5]))
  own[3] = own[3] + min(rest, max(tonumber(ARGV[14]), min(tonumber(ARGV[13]), share, cap)))
end

redis.call('HSET', KEYS[1],
  'h', pack(version + 1, limit, generation, folded),
  process, pack(own[1], own[2], own[3], own[4], own[5], own[6]))
if till and #stored == 0 then
  local kept = till + min(till - from, KEPT_MS_MAX)
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', kept))
end
return state(own)
