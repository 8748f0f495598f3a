-- ARGV: score after which the page of waiting calls begins ('' at the head), how many
-- Returns {enabled, lines, pending, scheduled, {held calls}, {the page's calls}, {stats}, last event ID, aht ms, now,
--          free lines, service level ms, open, opens at ms, score of the page's last call ('' if it is the last page), dead}
tick()
local function fields(id)
  local v = call('HMGET', call_key(id), 's', 'id', 'e', 'li', 'of', 'n', 'o', 'pt', 'pr')
  return { id, v[1] or '', v[2] or '', v[3] or '0', v[4] or '0', v[5] or '0', v[6] or '0', v[7] or '' }, v[8], v[9]
end
local held = {}
for _, index in ipairs({ 'held', 'wrapup' }) do
  for _, id in ipairs(call('ZRANGE', K .. index, 0, 999)) do held[#held + 1] = fields(id) end
end

local from, most = ARGV[1] == '' and '-inf' or '(' .. ARGV[1], tonumber(ARGV[2])
local found = {}
local function look(lane)
  local rows = call('ZRANGEBYSCORE', lane_key(lane), from, '+inf', 'WITHSCORES', 'LIMIT', 0, most + 1)
  for i = 1, #rows, 2 do found[#found + 1] = { rows[i], tonumber(rows[i + 1]) } end
end
look('')
for _, lane in ipairs(lanes()) do look(lane) end
table.sort(found, function(a, b) return a[2] < b[2] end)
local page, place = {}, found[1] and ahead(text(found[1][2])) or 0
for i = 1, min(most, #found) do
  local row, told, priority = fields(found[i][1])
  place = place + 1
  local shown, overtaken = place, 0
  if told then shown, overtaken = tell(place, tonumber(priority or 0), told) end
  row[9], row[10], row[11] = shown, estimate(shown), overtaken
  page[i] = row
end
local more = #found > most and text(found[most][2]) or ''

local last = call('XREVRANGE', K .. 'events', '+', '-', 'COUNT', 1)
local open, opens = opening()
return { conf('enabled', 1), conf('lines', 4), pending_count(), call('ZCARD', K .. 'scheduled'), held, page,
  call('HGETALL', K .. 'stats'), last[1] and last[1][1] or '0-0', text(conf('aht_ms', 120000)), now_text, free_lines(),
  conf('sl_ms', 20000), open and 1 or 0, text(opens), more, call('ZCARD', K .. 'dead') }
