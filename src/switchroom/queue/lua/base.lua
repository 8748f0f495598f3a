-- The state of one run, and the ways in and out of the store. Files follow in this order: base, line, figures, record,
-- history, moves, wake, time, one verb each, run. All of it is set up once a server; `begin` (run.lua) resets what belongs to one run.
local call = redis.call
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local pack = cmsgpack.pack

local K, now, now_text -- the flow's key prefix with its hash tag; the server's time in ms, as a number and as text
local settings, numbers, known_lanes, stirred, moves, known, written, writes, changed, hooked, over_with, tally, longest, aht
local verbs = {}

-- A whole number.
local function text(number) return string.format('%d', number) end

local SEPARATOR = '\31' -- between the skills of a set, and between a holder and a task; no skill may hold it

-- What a run changes in the indexes is written together, before the next look at one of them: a batch of calls costs a
-- command an index, not a command a call. Of each index `removed` is written first, then `added`: scores and members.
local MOST_WORDS = 1000
local function bulk(command, key, words)
  for first = 1, #words, MOST_WORDS do
    call(command, key, unpack(words, first, min(first + MOST_WORDS - 1, #words)))
  end
end

local function write_moves(key)
  local m = moves[key]
  moves[key] = nil
  if #m.removed > 0 then bulk('ZREM', key, m.removed) end
  if #m.added > 0 then bulk('ZADD', key, m.added) end
end

local function flush()
  while true do
    local key = next(moves)
    if not key then return end
    write_moves(key)
  end
end

local function moves_of(key)
  local m = moves[key]
  if not m then
    m = { added = {}, removed = {} }
    moves[key] = m
  end
  return m
end

-- Puts members into a sorted set of the flow, all at this score.
local function put_in(index, members, score)
  local added = moves_of(K .. index).added
  local n = #added
  for i = 1, #members do
    added[n + 1], added[n + 2] = score, members[i]
    n = n + 2
  end
end

-- Takes members out of a sorted set of the flow.
local function take_out(index, members)
  local key = K .. index
  if #moves_of(key).added > 0 then write_moves(key) end
  local removed = moves_of(key).removed
  local n = #removed
  for i = 1, #members do removed[n + i] = members[i] end
end

-- Every look at an index passes here.
local function look(command, key, ...)
  if moves[key] then write_moves(key) end
  return call(command, key, ...)
end

-- The flow's settings, read once a run at most: the map `rules`, and beside it what changes on its own.
local BESIDE = { 'enabled', 'open', 'tz_ms', 'hooks', 'aht_ms', 'minute', 'figures' }
local function word(name)
  if not settings then
    local values = call('HMGET', K .. 'conf', 'rules', unpack(BESIDE))
    settings = values[1] and cmsgpack.unpack(values[1]) or {}
    for i, beside in ipairs(BESIDE) do settings[beside] = values[i + 1] end
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
