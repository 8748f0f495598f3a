-- The state of one run, and the ways in and out of the store. Files follow in this order: base, line, record, figures,
-- wake, time, one verb each, run. All of it is set up once a server; `begin` (run.lua) resets what belongs to one run.
local call = redis.call
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local pack = cmsgpack.pack

local K, now, now_text -- the flow's key prefix with its hash tag; the server's time in ms, as a number and as text
local settings, numbers, known_lanes, stirred, moves, records, writes, changes, endings, hooked, over_with, tally, longest, aht
local verbs = {}

local function text(number) return string.format('%.0f', number) end

local SEPARATOR = '\31' -- between the skills of a set, and between a holder and a task; no skill may hold it

-- What a run changes in the indexes is written together, before the next look at one of them: a batch of calls costs a
-- command an index, not a command a call.
local MOST_WORDS = 1000
local function bulk(command, key, words)
  for first = 1, #words, MOST_WORDS do
    call(command, key, unpack(words, first, min(first + MOST_WORDS - 1, #words)))
  end
end

local function flush()
  local changed = moves
  moves = nil
  for index, members in pairs(changed) do
    local key = K .. index
    local added, removed = {}, {}
    for id, score in pairs(members) do
      if score then
        added[#added + 1] = score
        added[#added + 1] = id
      else
        removed[#removed + 1] = id
      end
    end
    if #removed > 0 then bulk('ZREM', key, removed) end
    if #added > 0 then bulk('ZADD', key, added) end
  end
end

-- Puts a member into a sorted set of the flow at this score, or takes it out (false).
local function place_in(index, id, score)
  if not moves then moves = {} end
  local members = moves[index]
  if not members then
    members = {}
    moves[index] = members
  end
  members[id] = score
end

-- Every look at an index passes here.
local function look(...)
  if moves then flush() end
  return call(...)
end

-- The flow's settings, read once a run at most.
local NAMES = { 'lines', 'enabled', 'aht_ms', 'sl_ms', 'open', 'hooks', 'short_ms', 'wrap_ms', 'retry_ms', 'relax',
  'backoff_ms', 'tz_ms', 'days', 'minute', 'max_wait_ms' }
local function word(name)
  if not settings then
    settings = {}
    for i, value in ipairs(call('HMGET', K .. 'conf', unpack(NAMES))) do settings[NAMES[i]] = value end
  end
  return settings[name]
end

local function conf(name, default)
  local value = numbers[name]
  if value == nil then
    value = tonumber(word(name) or '') or default
    numbers[name] = value
  end
  return value
end

-- Is the flow open by its hours, and when does it open next (0: it is open, or nobody knows)? `open` holds the coming
-- spans as 'from-to,from-to,…' in milliseconds.
local function opening()
  local spans = word('open')
  if not spans or spans == '' then return true, 0 end
  for from, to in spans:gmatch('(%d+)%-(%d+)') do
    if now < tonumber(to) then
      if now >= tonumber(from) then return true, 0 end
      return false, tonumber(from)
    end
  end
  return false, 0
end

-- A caller waits from the time asked for, or from the opening, not from the enqueue.
local function waits_from(at)
  local open, opens = opening()
  return open and at or max(at, opens)
end

local function hands_out() return conf('enabled', 1) == 1 and opening() end

-- Lines that are idle: none is held on them, and nobody wraps up on them.
local function free_lines()
  local busy = look('ZCARD', K .. 'held')
  if conf('wrap_ms', 0) > 0 then busy = busy + look('ZCARD', K .. 'rest') end
  return conf('lines', 4) - busy
end
