-- ARGV: minutes of the window, first day, last day (days since 1970 in the flow's own time)
-- Returns {now, service level ms, tz ms, longest wait of those that wait ms, {ever}, {a minute of the window}, {day, {of it}}}
tick()
local oldest = 0
local function look(key)
  local from = '-inf'
  for _ = 1, 20 do -- the head of each priority has waited longest among its own
    local row = call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if #row == 0 then return end
    local v = call('HMGET', call_key(row[1]), 'e', 'ws')
    oldest = max(oldest, now - tonumber(v[2] or v[1] or now))
    from = text((floor(row[2] / BAND) + 1) * BAND)
  end
end
look(K .. 'pending')
for _, lane in ipairs(lanes()) do look(lane_key(lane)) end
local window, days = {}, {}
local minute = floor(now / 60000)
for i = 0, tonumber(ARGV[1]) - 1 do window[#window + 1] = call('HGETALL', K .. 'minute:' .. text(minute - i)) end
for day = tonumber(ARGV[2]), tonumber(ARGV[3]) do
  local of_it = call('HGETALL', K .. 'stats:' .. text(day))
  if #of_it > 0 then days[#days + 1] = { day, of_it } end
end
return { now_text, conf('sl_ms', 20000), conf('tz_ms', 0), oldest, call('HGETALL', K .. 'stats'), window, days }
