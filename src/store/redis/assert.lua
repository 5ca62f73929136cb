-- What a process remembers of counters of one shard, as `domain::shard::{Shard, Kept}::assert`.
-- After shard.lua, whose keys and arguments it has.
--
-- KEYS[2,4..]  the quota counters, as in quota.lua
-- KEYS[3,5..]  when the rolling periods of each one's subject began, as in anchor.lua
-- and after them, for each rate, what is told of it, as in rate.lua
-- ARGV[4]  1: the last batch
-- ARGV[5]  how many quota counters there are
-- ARGV[6]  how many live processes are listed; they follow, eight bytes each
-- then for each quota counter:
--   when it is forgotten, in ms since 1970, or empty
--   when the periods began, in ms since 1970, or empty
--   0, or 1 and the process's own totals: q0, q, g, r, s, d
--   0, or 1 and a copy: written in, version, limit, generation, folded, how many cells, and
--   for each: process, q0, q, g, r, s, d
-- then for each rate: how many pairs, and these: in how many ms units leave, how many
--
-- Answers {echo, incarnation, 1 if it was taken in, else 0: LEARN}.
local process = ARGV[3]
local now = server_time()
local incarnation, _, learning = keep_up(now, KEYS[1], tonumber(ARGV[2]))
if tonumber(ARGV[2]) < incarnation then
  return {ARGV[1], incarnation, 0}
end

local at = 6 -- The last argument read.
local function following()
  at = at + 1
  return ARGV[at]
end
local function numbers(count)
  local list = {}
  for i = 1, count do list[i] = tonumber(following()) end
  return list
end

local function insert(names, name)
  for _, known in ipairs(names) do
    if known == name then return end
  end
  names[#names + 1] = name
end

local listed = {process}
for _ = 1, tonumber(ARGV[6]) do listed[#listed + 1] = following() end
if learning then
  for _, name in ipairs(listed) do insert(learning[3], name) end
  if ARGV[4] == '1' then insert(learning[4], process) end
  local wanted = min(now + LEARN_PAUSE_MS, learning[1] + LEARN_ARRIVING_MS_MAX)
  learning[2] = max(learning[2], wanted)
  redis.call('HSET', KEYS[1], 'l', pack(unpack(learning)))
end

local function taken(cell)
  return max(0, cell[3] - cell[4]) + cell[6]
end

-- What an owner says of its cell goes over what is known of it.
local function put(counter, name, cell)
  local known = counter.cells[name]
  if known and known[1] == cell[1] then
    for i = 1, 6 do cell[i] = max(cell[i], known[i]) end
  elseif known and cell[1] < known[1] then
    return
  elseif known then
    counter.folded = counter.folded + taken(known)
  end
  counter.cells[name] = cell
end

local function load(key)
  local counter = {version = 0, limit = 0, generation = 0, folded = 0, written = 0, cells = {},
    asserted = {}, asserted_in = 0}
  local stored = redis.call('HGETALL', key)
  for i = 1, #stored, 2 do
    local name, value = stored[i], stored[i + 1]
    if name == 'h' then
      counter.version, counter.limit, counter.generation, counter.folded, counter.written =
        cunpack(value)
    elseif name == 'a' then
      counter.asserted_in, counter.asserted = cunpack(value)
    else
      counter.cells[name] = {cunpack(value)}
    end
  end
  return counter
end

local function save(key, counter, forgotten)
  redis.call('DEL', key)
  redis.call('HSET', key, 'h', pack(counter.version, counter.limit, counter.generation,
    counter.folded, counter.written))
  if next(counter.asserted) then
    redis.call('HSET', key, 'a', pack(counter.asserted_in, counter.asserted))
  end
  for name, cell in pairs(counter.cells) do
    redis.call('HSET', key, name, pack(unpack(cell)))
  end
  if forgotten ~= '' then redis.call('PEXPIREAT', key, forgotten) end
end

local function learn(counter, cell, copy)
  if counter.asserted_in ~= incarnation then
    counter.asserted_in, counter.asserted = incarnation, {}
  end
  if cell then
    local known = counter.asserted[process]
    if known and known[1] == cell[1] then
      for i = 1, 6 do cell[i] = max(cell[i], known[i]) end
    end
    if not known or known[1] <= cell[1] then counter.asserted[process] = cell end
  end
  if copy and (counter.written < copy.written
      or counter.written == copy.written and counter.version < copy.version) then
    counter.written, counter.version, counter.limit = copy.written, copy.version, copy.limit
    counter.generation, counter.folded, counter.cells = copy.generation, copy.folded, copy.cells
  end
  for name, own in pairs(counter.asserted) do
    put(counter, name, {unpack(own)})
  end
end

local rates_from = 2 + 2 * tonumber(ARGV[5])
for i = 2, rates_from - 1, 2 do
  local forgotten, anchor = following(), tonumber(following())
  if anchor then
    -- The oldest is the one that units were granted under.
    local known = redis.call('GET', KEYS[i + 1])
    if not known or learning and anchor < tonumber(known) then
      redis.call('SET', KEYS[i + 1], whole(anchor))
    end
  end
  local cell = following() == '1' and numbers(6) or nil
  local copy
  if following() == '1' then
    local head = numbers(6)
    copy = {written = head[1], version = head[2], limit = head[3], generation = head[4],
      folded = head[5], cells = {}}
    for _ = 1, head[6] do
      local name = following()
      copy.cells[name] = numbers(6)
    end
  end
  local counter = load(KEYS[i])
  if learning then
    learn(counter, cell, copy)
    save(KEYS[i], counter, forgotten)
  elseif cell then
    -- Grants have followed, and a copy would undo them: only the caller's own cell counts.
    local known = counter.cells[process]
    if (known and known[2] or 0) < cell[2] then
      put(counter, process, cell)
      counter.version, counter.written = counter.version + 1, incarnation
      save(KEYS[i], counter, forgotten)
    end
  end
end
for i = rates_from, #KEYS do
  local told, longest = {}, 0
  for _ = 1, tonumber(following()) do
    local pair = numbers(2)
    longest = max(longest, pair[1])
    told[#told + 1], told[#told + 2] = now + pair[1], pair[2]
  end
  if learning and 0 < longest then
    redis.call('HSET', KEYS[i], process, pack(told))
    if redis.call('PTTL', KEYS[i]) < longest then redis.call('PEXPIRE', KEYS[i], whole(longest)) end
  end
end
return {ARGV[1], incarnation, 1}
