-- Writes records: all of them, or none. As a whole, or in two parts around an MSETNX of the records that
-- are new, in one transaction: "look" and "rest".
--
-- KEYS[1]  the generation of the last commit, a number
-- KEYS[2]  the change feed, a stream; an entry's id is its commit's generation
-- KEYS[3]  the guard of a transaction, a string: "up" before its look, and then MSETNX writes nothing; gone
--          when all is well; empty when MSETNX has written
-- KEYS[4..]  the records, strings (generation as eight bytes, big-endian; value): first those that
--          are new (in the parts, none), then those that are changed, then those that are deleted
-- KEYS[..]  behind them, indexes: the ids of records of a kind, sorted sets with equal scores (in the look,
--          none)
-- ARGV[1]  the call's number on its connection, echoed
-- ARGV[2]  the keys of those of this commit's records that gateways follow, for the feed
-- ARGV[3]  about how many entries the feed keeps
-- ARGV[4..6]  how many records are new, changed, deleted
-- ARGV[7]  the part: "all", "look", or "rest"
-- ARGV[8]  of the parts: the commit's generation, a number
-- ARGV[9..]  the values of those that are new
-- ARGV[..]  per record that is changed: the condition (empty: none; `-`: absent; eight bytes: this
--          generation; `=`: that of the last argument), the value (in the look, empty)
-- ARGV[..]  per record that is deleted: the condition
-- ARGV[..]  per index: how many ids it gets and how many it loses; those ids
-- ARGV[last]  the generation of the commit that this one comes after, eight bytes
--
-- Answers {echo, 0, generation}, or {echo, 1, n}: the condition of record n (from 0) did not hold; the rest
-- {echo, 2, 0}: nothing is written, and why is not said. What the look answers means nothing.
local NEW, CHANGED, GONE = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local PART = ARGV[7]
local CHANGED_AT, GONE_AT = 9 + NEW, 9 + NEW + 2 * CHANGED
-- Arguments of one command: unpacking has a limit of some 8,000.
local STEP = 4000

-- Calls a command with a list of arguments, as often as it takes.
local function all(command, first, list)
  for from = 1, #list, STEP do
    local till = math.min(from + STEP - 1, #list)
    if first then
      redis.call(command, first, unpack(list, from, till))
    else
      redis.call(command, unpack(list, from, till))
    end
  end
end

local function broken(n)
  return {ARGV[1], 1, n}
end

local function holds(n, expect)
  if expect == '' then return true end
  if expect == '=' then expect = ARGV[#ARGV] end
  local found = redis.call('GETRANGE', KEYS[4 + n], 0, 7)
  return found == (expect == '-' and '' or expect)
end

if PART == 'rest' then
  local guard = redis.call('GET', KEYS[3])
  -- It is the first to write, and may always: if the server is out of memory by now, the rest goes in all the same.
  redis.call('DEL', KEYS[3])
  if guard ~= '' then return {ARGV[1], 2, 0} end
else
  for n = 0, CHANGED - 1 do
    if not holds(NEW + n, ARGV[CHANGED_AT + 2 * n]) then return broken(NEW + n) end
  end
  for n = 0, GONE - 1 do
    if not holds(NEW + CHANGED + n, ARGV[GONE_AT + n]) then return broken(NEW + CHANGED + n) end
  end
end

-- A generation is never below this server's time in ms: so one made after writes were lost is
-- above all that were lost, and what was read under those is never taken for unchanged.
local before = tonumber(redis.call('GET', KEYS[1]) or '0')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if PART == 'look' then
  local is_last = struct.pack('>I8', before) == ARGV[#ARGV]
  if is_last and tonumber(ARGV[8]) <= now then redis.call('DEL', KEYS[3]) end
  return {ARGV[1], 0, 0}
end
local generation = PART == 'rest' and tonumber(ARGV[8]) or math.max(before + 1, now)
local text = string.format('%.0f', generation)
local head = struct.pack('>I8', generation)

local records = {}
for n = 1, NEW do
  records[2 * n - 1], records[2 * n] = KEYS[3 + n], head .. ARGV[8 + n]
end
-- The first write, here or below: if the server is out of memory it refuses this one, and nothing
-- has changed. Most records of a large commit are new: they are looked for as they are written.
local written = NEW == 0
if not written and #records <= STEP then
  written = redis.call('MSETNX', unpack(records)) == 1
end
if not written then
  for n = 0, NEW - 1 do
    if not holds(n, '-') then return broken(n) end
  end
  all('MSET', nil, records)
end

redis.call('SET', KEYS[1], text)
local entry = {'p', string.format('%.0f', before), 'k', ARGV[2]}
local added = redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], text .. '-0', unpack(entry))
if added.err then
  -- A feed that goes further than the generation, by somebody's hand. Followers see a gap.
  redis.call('DEL', KEYS[2])
  redis.call('XADD', KEYS[2], text .. '-0', unpack(entry))
end

records = {}
for n = 0, CHANGED - 1 do
  records[2 * n + 1] = KEYS[4 + NEW + n]
  records[2 * n + 2] = head .. ARGV[CHANGED_AT + 2 * n + 1]
end
all('MSET', nil, records)
records = {}
for n = 0, GONE - 1 do records[n + 1] = KEYS[4 + NEW + CHANGED + n] end
all('DEL', nil, records)

local at = GONE_AT + GONE
for index = 4 + NEW + CHANGED + GONE, #KEYS do
  local more, less, ids = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), {}
  at = at + 2
  for n = 0, more - 1 do
    ids[2 * n + 1], ids[2 * n + 2] = '0', ARGV[at + n]
  end
  all('ZADD', KEYS[index], ids)
  at = at + more
  ids = {}
  for n = 0, less - 1 do ids[n + 1] = ARGV[at + n] end
  all('ZREM', KEYS[index], ids)
  at = at + less
end
return {ARGV[1], 0, generation}
