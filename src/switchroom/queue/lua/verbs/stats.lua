-- Minutes of the window; first and last day (days since 1970 in the flow's own time).
-- Returns {now, service level ms, tz ms, longest wait of those that wait ms, {{ever}, {the open minute}},
--          {a minute of the window}, {day, {of it}, {of the open minute}}}
function verbs.stats(minutes, first_day, last_day)
  tick()
  local oldest = 0
  local function from_lane(index)
    local from = '-inf'
    for _ = 1, 20 do -- the head of each priority has waited longest among its own
      local row = look('ZRANGEBYSCORE', K .. index, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
      if #row == 0 then return end
      oldest = max(oldest, now - load(row[1]).sinces[1])
      from = text((floor(row[2] / BAND) + 1) * BAND)
    end
  end
  from_lane('pending')
  for _, lane in ipairs(lanes()) do from_lane(lane_index(lane)) end
  write_figures() -- of what `tick` just did
  local open, of_open = conf('minute', 0), flat(of_open_minute())
  local window, days = {}, {}
  local minute = floor(now / 60000)
  for i = 0, minutes - 1 do
    window[i + 1] = minute - i == open and of_open or call('HGETALL', K .. 'minute:' .. text(minute - i))
  end
  for day = first_day, last_day do
    local of_it = call('HGETALL', K .. 'stats:' .. text(day))
    local also = text(day) == day_of(open) and of_open or {}
    if #of_it + #also > 0 then days[#days + 1] = { day, of_it, also } end
  end
  return { now_text, conf('sl_ms', 20000), conf('tz_ms', 0), oldest, { call('HGETALL', K .. 'stats'), of_open }, window, days }
end
