-- Writes records: all of them, or none.
--
-- KEYS[1]  the generation of the last commit, a number
-- KEYS[2]  the change feed, a stream; an entry's id is its commit's generation
-- KEYS[3,5..]  per write: the record, a string (generation as eight bytes, big-endian; value)
-- KEYS[4,6..]  per write: the ids of records of this kind, a sorted set with equal scores
-- ARGV[1]  the call's number on its connection, echoed
-- ARGV[2]  the keys of this commit's records, for the feed
-- ARGV[3]  about how many entries the feed keeps
-- ARGV[4,8..]  per write: the condition: empty: none; `-`: absent; eight bytes: this generation
-- ARGV[5,9..]  per write: 1: write, 0: delete
-- ARGV[6,10..] per write: the value
-- ARGV[7,11..] per write: the id
--
-- Answers {echo, 0, generation}, or {echo, 1, n}: the condition of write n (from 0) did not hold.
local writes = (#ARGV - 3) / 4
-- Arguments of one command: unpacking has a limit of some 8,000.
local STEP = 2000

-- Calls a command with a list of arguments, as often as it takes; the sum of what it answers.
local function all(command, first, list)
  local sum = 0
  for from = 1, #list, STEP do
    local till = math.min(from + STEP - 1, #list)
    local answer
    if first then
      answer = redis.call(command, first, unpack(list, from, till))
    else
      answer = redis.call(command, unpack(list, from, till))
    end
    sum = sum + (tonumber(answer) or 0)
  end
  return sum
end

local function holds(n)
  local expect = ARGV[4 + 4 * n]
  if expect == '' then return true end
  local found = redis.call('GETRANGE', KEYS[3 + 2 * n], 0, 7)
  return found == (expect == '-' and '' or expect)
end

-- Most records of a large commit are new: they are looked for at once.
local new, wrong = {}, false
for n = 0, writes - 1 do
  if ARGV[4 + 4 * n] == '-' then
    new[#new + 1] = KEYS[3 + 2 * n]
  elseif not holds(n) then
    wrong = true
  end
end
if wrong or all('EXISTS', nil, new) ~= 0 then
  for n = 0, writes - 1 do
    if not holds(n) then return {ARGV[1], 1, n} end
  end
end

-- A generation is never below this server's time in ms: so one made after writes were lost is
-- above all that were lost, and what was read under those is never taken for unchanged.
local before = tonumber(redis.call('GET', KEYS[1]) or '0')
local time = redis.call('TIME')
local generation = math.max(before + 1, time[1] * 1000 + math.floor(time[2] / 1000))
local text = string.format('%.0f', generation)
-- The first write: if the server is out of memory it refuses this one, and nothing has changed.
redis.call('SET', KEYS[1], text)
local entry = {'p', string.format('%.0f', before), 'k', ARGV[2]}
local added = redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], text .. '-0', unpack(entry))
if added.err then
  -- A feed that goes further than the generation, by somebody's hand. Followers see a gap.
  redis.call('DEL', KEYS[2])
  redis.call('XADD', KEYS[2], text .. '-0', unpack(entry))
end
local head = struct.pack('>I8', generation)

-- Records that follow one another in a commit and are all written, or all deleted, go together.
local records, ids, kinds = {}, {}, {}
local function put(kind, ...)
  local list = ids[kind]
  if not list then
    list = {}
    ids[kind], kinds[#kinds + 1] = list, kind
  end
  for _, value in ipairs({...}) do list[#list + 1] = value end
end
local function flush(writing)
  all(writing and 'MSET' or 'DEL', nil, records)
  for _, kind in ipairs(kinds) do
    all(writing and 'ZADD' or 'ZREM', kind, ids[kind])
  end
  records, ids, kinds = {}, {}, {}
end
local writing = true
for n = 0, writes - 1 do
  local record, kind, id = KEYS[3 + 2 * n], KEYS[4 + 2 * n], ARGV[7 + 4 * n]
  local writes_this = ARGV[5 + 4 * n] == '1'
  if writes_this ~= writing then
    flush(writing)
    writing = writes_this
  end
  records[#records + 1] = record
  if writing then
    records[#records + 1] = head .. ARGV[6 + 4 * n]
    put(kind, 0, id)
  else
    put(kind, id)
  end
end
flush(writing)
return {ARGV[1], 0, generation}
