-- Statistics gather here and are written once a run, to the minute that is open: a map in the settings. The first run of
-- another minute writes a hash of the one before, and adds it to its day and to what counts for ever: whoever reads adds
-- the minute that is open.
local function count(field, by) tally[field] = (tally[field] or 0) + by end

-- Of calls that came at these times.
local function answered(sinces)
  local soon, waits, in_time = conf('sl_ms', 20000), 0, 0
  for i = 1, #sinces do
    local wait = max(0, now - sinces[i])
    waits = waits + wait
    if wait > longest then longest = wait end
    if wait <= soon then in_time = in_time + 1 end
  end
  count('answered', #sinces)
  count('wait_ms', waits)
  if in_time > 0 then count('in_sl', in_time) end
end

local function over(reason, live, sinces)
  count('ended', #sinces)
  if reason == 'failed' or reason == 'timeout' or reason == 'no_answer' then count('failed', #sinces) end
  if (reason == 'abandoned' or reason == 'expired') and live == 0 then
    for i = 1, #sinces do
      local wait = max(0, now - sinces[i])
      count('abandoned', 1)
      longest = max(longest, wait)
      if reason == 'abandoned' and wait < conf('short_ms', 5000) then count('short_abandoned', 1) end
    end
  end
end

local function handled(live, many)
  local took = max(0, now - live)
  count('handle_ms', took * many)
  count('handled', many)
  -- moving average of the handling time, for the estimated wait: a tenth of each new call
  aht = aht or tonumber(word('aht_ms') or '') or took
  aht = took + (aht - took) * 0.9 ^ many
end

-- Of two counts of a figure the sum; of the longest waits the longest.
local function both(name, one, other) return name == 'longest_ms' and max(one, other) or one + other end

local function flat(figures)
  local words = {}
  for name, number in pairs(figures) do
    words[#words + 1] = name
    words[#words + 1] = text(number)
  end
  return words
end

-- Adds figures to a hash of figures.
local function add_up(key, figures)
  local names, sums = {}, {}
  for name in pairs(figures) do names[#names + 1] = name end
  for i, old in ipairs(call('HMGET', key, unpack(names))) do
    sums[names[i]] = both(names[i], tonumber(old or 0), figures[names[i]])
  end
  call('HSET', key, unpack(flat(sums)))
end

local function day_of(minute) return text(floor((minute * 60000 + conf('tz_ms', 0)) / 86400000)) end

local function of_open_minute()
  local packed = word('figures')
  return packed and cmsgpack.unpack(packed) or {}
end

local MINUTES_KEPT_S = 7200
local function close_minute(minute, figures)
  if not next(figures) then return end
  local key, day = K .. 'minute:' .. text(minute), K .. 'stats:' .. day_of(minute)
  call('HSET', key, unpack(flat(figures)))
  call('EXPIRE', key, MINUTES_KEPT_S)
  add_up(K .. 'stats', figures)
  add_up(day, figures)
  call('EXPIRE', day, text(conf('days', 400) * 86400))
end

local function write_figures()
  if not next(tally) then return end
  local open, figures = conf('minute', 0), of_open_minute()
  local minute = max(floor(now / 60000), open) -- a minute that is closed stays closed, whatever the clock does
  if open ~= minute then
    close_minute(open, figures)
    figures = {}
  end
  tally.longest_ms = longest
  for name, number in pairs(tally) do figures[name] = both(name, figures[name] or 0, number) end
  local words = { 'minute', text(minute), 'figures', pack(figures) }
  if aht then words[5], words[6] = 'aht_ms', text(floor(aht + 0.5)) end
  call('HSET', K .. 'conf', unpack(words))
  -- What was written is read again by whoever asks.
  tally, aht, settings, numbers = {}, nil, nil, {}
end
