-- Shared by every script of the queue, in this order: base, line, wake, record, time, then the script's own body.
-- KEYS[1] is the flow's key prefix with its hash tag; the table of transitions `T` stands above this line.
local K = KEYS[1]
local call = redis.call
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local clock = call('TIME')
local now = clock[1] * 1000 + floor(clock[2] / 1000)

local function text(number) return string.format('%.0f', number) end
local now_text = text(now)

local function call_key(id) return K .. 'c:' .. id end

local SEPARATOR = '\31' -- between the skills of a set, and between a holder and a task; no skill may hold it

-- The flow's settings, read once a script at most.
local NAMES = { 'lines', 'enabled', 'aht_ms', 'sl_ms', 'open', 'hooks', 'short_ms', 'wrap_ms', 'retry_ms', 'relax',
  'backoff_ms', 'tz_ms', 'days' }
local settings
local function word(name)
  if not settings then
    settings = {}
    for i, value in ipairs(call('HMGET', K .. 'conf', unpack(NAMES))) do settings[NAMES[i]] = value end
  end
  return settings[name]
end

local function conf(name, default)
  local value = word(name)
  if value and value ~= '' then return tonumber(value) end
  return default
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

local function hands_out() return conf('enabled', 1) == 1 and opening() end

-- Lines that are idle: none is held on them, and nobody wraps up on them.
local function free_lines()
  local busy = call('ZCARD', K .. 'held')
  if conf('wrap_ms', 0) > 0 then busy = busy + call('ZCARD', K .. 'rest') end
  return conf('lines', 4) - busy
end

-- Statistics gather here and are written once, by `settle`: for ever, by day, and by minute for the window.
local tally, longest, aht = {}, 0, nil
local function count(field, by) tally[field] = (tally[field] or 0) + by end

local MINUTES_KEPT_S = 7200
local function write_statistics()
  if aht then call('HSET', K .. 'conf', 'aht_ms', text(aht)) end
  if not next(tally) then return end
  local day = K .. 'stats:' .. text(floor((now + conf('tz_ms', 0)) / 86400000))
  local minute = K .. 'minute:' .. text(floor(now / 60000))
  for key, life_s in pairs({ [K .. 'stats'] = 0, [day] = conf('days', 400) * 86400, [minute] = MINUTES_KEPT_S }) do
    if life_s > 0 and call('EXISTS', key) == 0 then
      call('HSET', key, 'longest_ms', 0)
      call('EXPIRE', key, text(life_s))
    end
    for field, by in pairs(tally) do call('HINCRBY', key, field, text(by)) end
    if longest > 0 and longest > tonumber(call('HGET', key, 'longest_ms') or 0) then
      call('HSET', key, 'longest_ms', text(longest))
    end
  end
end
