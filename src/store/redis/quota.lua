-- Calls on quota counters, as `domain::lease::QuotaCounter::reserve`. After shard.lua, whose keys and
-- arguments it has, for each call.
--
-- KEYS[2]   the counter, a hash, all values MessagePack: field `h` (version, limit, generation,
--           folded, the incarnation it was last written in); a field per process (its eight bytes):
--           (q0, q, g, r, s, d); while the shard learns `a` (incarnation, {process = {q0..d}})
-- ARGV[4,5] start and end of the window in ms since 1970; the end is empty if it never ends
-- ARGV[6-11]  the process's totals: q0, q, g, r, s, d
-- ARGV[12,13] limit, and the generation it is known from
-- ARGV[14-17] want, need, least, live
-- KEYS[3..], ARGV[18..]  the next call, if there are many
-- ARGV[18..]  of a single call, processes that are alive or ended lately, eight bytes each: where any
--           is named, the cells of all others are folded once there are many
--
-- Answers {echo, now, what, ...}, or of many calls {echo, now} and for each {what, the one number that
-- follows it}; `what` is
--   0: executed or repeated; then q0, q, g, r, s, d, remaining, held by others, limit, and the copy:
--      written in, version, generation, folded, and per cell process, q0, q, g, r, s, d
--   1: gone; then the copy as above after the limit: limit, written in...
--   2: another window; then 0
--   3: LEARN; then the incarnation
local KEPT_MS_MAX = 86400000
local CAP_DIVISOR = 20
local CELLS_MANY = 16
local ARGUMENTS = 16 -- Of a call.

local now = server_time()
local many = 2 < #KEYS
local folding = not many and ARGV[2 + ARGUMENTS]

-- Executes the call whose arguments begin at `at`.
local function reserve(shard, counter, at)
  local known, process = tonumber(ARGV[at]), ARGV[at + 1]
  local from, till = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local incarnation, _, learning = keep_up(now, shard, known)
  if learning or known < incarnation then
    return {ARGV[1], now, 3, incarnation}
  end
  if now < from or (till and till <= now) then
    return {ARGV[1], now, 2, 0}
  end

  local q0, q, g = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  local r, s, d = tonumber(ARGV[at + 7]), tonumber(ARGV[at + 8]), tonumber(ARGV[at + 9])

  local version, limit, generation, folded, written = 0, 0, 0, 0, 0
  local cell = nil
  local others = {} -- name, q0, q, g, r, s, d, name...
  local taken, held = 0, 0 -- By the others.
  local asserted = false
  local stored = redis.call('HGETALL', counter)
  for i = 1, #stored, 2 do
    local name = stored[i]
    if name == 'h' then
      version, limit, generation, folded, written = cunpack(stored[i + 1])
    elseif name == 'a' then
      asserted = true
    elseif name == process then
      cell = {cunpack(stored[i + 1])}
    else
      local first, last, granted, returned, spent, loc = cunpack(stored[i + 1])
      local kept = max(0, granted - returned)
      taken = taken + kept + loc
      held = held + max(0, kept - spent)
      local n = #others
      others[n + 1], others[n + 2], others[n + 3], others[n + 4] = name, first, last, granted
      others[n + 5], others[n + 6], others[n + 7] = returned, spent, loc
    end
  end

  local function remaining(own)
    local mine = max(0, own[3] - own[4]) + own[6]
    return max(0, limit - folded - taken - mine)
  end

  local function copy(answer, own)
    local n = #answer
    answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4] = limit, written, version, generation
    answer[n + 5] = folded
    for i = 1, #others do answer[n + 5 + i] = others[i] end
    if own then
      n = #answer
      answer[n + 1] = process
      for i = 1, 6 do answer[n + 1 + i] = own[i] end
    end
    return answer
  end

  local function state(own)
    return copy({ARGV[1], now, 0, own[1], own[2], own[3], own[4], own[5], own[6],
      remaining(own), held}, own)
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
    return copy({ARGV[1], now, 1}, cell)
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
  if generation <= tonumber(ARGV[at + 11]) then
    generation = tonumber(ARGV[at + 11])
    limit = tonumber(ARGV[at + 10])
  end

  -- Step 4: the grant. What the caller has not seen of earlier ones comes with this answer too.
  local rest = remaining(own)
  local unseen = max(0, own[3] - g)
  if max(0, tonumber(ARGV[at + 14]) - unseen) <= rest then
    local parts = max(1, tonumber(ARGV[at + 15])) * 2
    local share = (rest - rest % parts) / parts
    if 0 < rest % parts then share = share + 1 end
    if share == 1 then share = 0 end
    local cap = max(0, floor(limit / CAP_DIVISOR) - max(0, max(0, own[3] - own[4]) - own[5]))
    local need, want = max(0, tonumber(ARGV[at + 13]) - unseen), max(0, tonumber(ARGV[at + 12]) - unseen)
    own[3] = own[3] + min(rest, max(need, min(want, share, cap)))
  end

  -- Cells of processes that are long gone: what they took stays taken.
  if folding and CELLS_MANY < #others / 7 + 1 then
    local known, kept = {}, {}
    for i = 2 + ARGUMENTS, #ARGV do known[ARGV[i]] = true end
    for i = 1, #others, 7 do
      if known[others[i]] then
        for j = i, i + 6 do kept[#kept + 1] = others[j] end
      else
        local units = max(0, others[i + 3] - others[i + 4])
        folded = folded + units + others[i + 6]
        taken = taken - units - others[i + 6]
        held = held - max(0, units - others[i + 5])
        redis.call('HDEL', counter, others[i])
      end
    end
    others = kept
  end

  version, written = version + 1, incarnation
  redis.call('HSET', counter,
    'h', pack(version, limit, generation, folded, written),
    process, pack(own[1], own[2], own[3], own[4], own[5], own[6]))
  if asserted then redis.call('HDEL', counter, 'a') end
  if till and #stored == 0 then
    local kept = till + min(till - from, KEPT_MS_MAX)
    redis.call('PEXPIREAT', counter, whole(kept))
  end
  return state(own)
end

if not many then
  return reserve(KEYS[1], KEYS[2], 2)
end
local answers = {ARGV[1], now}
for i = 1, #KEYS, 2 do
  local answer = reserve(KEYS[i], KEYS[i + 1], 2 + (i - 1) / 2 * ARGUMENTS)
  answers[i + 2], answers[i + 3] = answer[3], answer[4]
end
return answers
