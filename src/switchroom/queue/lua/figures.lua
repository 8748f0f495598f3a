-- Statistics gather here and are written once a run, into the hash of the minute. The first run of another minute adds
-- the one before to its day and to what counts for ever: whoever reads adds the minute that is open (`conf.minute`).
local function count(field, by) tally[field] = (tally[field] or 0) + by end

local function answered(since)
  local wait = max(0, now - since)
  count('answered', 1)
  count('wait_ms', wait)
  longest = max(longest, wait)
  if wait <= conf('sl_ms', 20000) then count('in_sl', 1) end
end

local function over(reason, live, since)
  count('ended', 1)
  if reason == 'failed' or reason == 'timeout' or reason == 'no_answer' then count('failed', 1) end
  if (reason == 'abandoned' or reason == 'expired') and live == 0 then
    local wait = max(0, now - since)
    count('abandoned', 1)
    longest = max(longest, wait)
    if reason == 'abandoned' and wait < conf('short_ms', 5000) then count('short_abandoned', 1) end
  end
end

local function handled(live)
  local took = max(0, now - live)
  count('handle_ms', took)
  count('handled', 1)
  -- moving average of the handling time, for the estimated wait: a tenth of each new call
  aht = aht or tonumber(word('aht_ms') or '') or took
  aht = aht + (took - aht) / 10
end

-- Adds figures to a hash of figures; of the longest waits it keeps the longest.
local function add_up(key, figures)
  local names, sums = {}, {}
  for name in pairs(figures) do names[#names + 1] = name end
  for i, old in ipairs(call('HMGET', key, unpack(names))) do
    local name = names[i]
    local new = name == 'longest_ms' and max(tonumber(old or 0), figures[name]) or tonumber(old or 0) + figures[name]
    sums[#sums + 1] = name
    sums[#sums + 1] = text(new)
  end
  call('HSET', key, unpack(sums))
end

local function day_of(minute) return text(floor((minute * 60000 + conf('tz_ms', 0)) / 86400000)) end

local MINUTES_KEPT_S = 7200
local function close_minute(minute)
  local key, figures = K .. 'minute:' .. text(minute), {}
  local flat = call('HGETALL', key)
  for i = 1, #flat, 2 do figures[flat[i]] = tonumber(flat[i + 1]) end
  if #flat == 0 then return end
  call('EXPIRE', key, MINUTES_KEPT_S)
  local day = K .. 'stats:' .. day_of(minute)
  add_up(K .. 'stats', figures)
  add_up(day, figures)
  call('EXPIRE', day, text(conf('days', 400) * 86400))
end

local function write_figures()
  if aht then call('HSET', K .. 'conf', 'aht_ms', text(aht)) end
  if not next(tally) then return end
  local open = conf('minute', 0)
  local minute = max(floor(now / 60000), open) -- a minute that is closed stays closed, whatever the clock does
  if open ~= minute then
    if open > 0 then close_minute(open) end
    call('HSET', K .. 'conf', 'minute', text(minute))
  end
  tally.longest_ms = longest
  add_up(K .. 'minute:' .. text(minute), tally)
end
