-- The queue now, with a page of waiting calls: those after the score `from` ('' at the head), at most `most`.
-- Returns {enabled, lines, pending, scheduled, {held calls}, {the page's calls}, {{ever}, {the open minute}},
--          last entry of the events, aht ms, now, free lines, service level ms, open, opens at ms,
--          score of the page's last call ('' if it is the last page), dead}
-- and of a call {task, record}, of a waiting one also place told, estimate ms, overtaken.
function verbs.status(from, most)
  tick()
  local held, ids = {}, {}
  for _, index in ipairs({ 'held', 'wrapup' }) do
    for _, id in ipairs(look('ZRANGE', K .. index, 0, 999)) do ids[#ids + 1] = id end
  end
  fetch(ids)
  for _, id in ipairs(ids) do held[#held + 1] = { id, stored(load(id))[1] } end

  from = from == '' and '-inf' or '(' .. from
  local found = {}
  local function from_lane(lane)
    local rows = look('ZRANGEBYSCORE', K .. lane_index(lane), from, '+inf', 'WITHSCORES', 'LIMIT', 0, most + 1)
    for i = 1, #rows, 2 do found[#found + 1] = { rows[i], tonumber(rows[i + 1]) } end
  end
  from_lane('')
  for _, lane in ipairs(lanes()) do from_lane(lane) end
  table.sort(found, function(a, b) return a[2] < b[2] end)
  ids = {}
  for i = 1, min(most, #found) do ids[i] = found[i][1] end
  fetch(ids)
  local page, place = {}, found[1] and ahead(text(found[1][2])) or 0
  for i, id in ipairs(ids) do
    local c = load(id)
    place = place + 1
    local shown, overtaken, told = place, 0, own(c).told
    if told ~= '' then shown, overtaken = tell(place, get(c, PRIORITY), told) end
    page[i] = { id, stored(c)[1], shown, estimate(shown), overtaken }
  end
  local more = #found > most and text(found[most][2]) or ''

  write_changes() -- of what `tick` just did: the answer names the last one
  write_figures()
  local last = call('XREVRANGE', K .. 'events', '+', '-', 'COUNT', 1)
  local open, opens = opening()
  return { conf('enabled', 1), conf('lines', 4), pending_count(), look('ZCARD', K .. 'scheduled'), held, page,
    { call('HGETALL', K .. 'stats'), flat(of_open_minute()) },
    last[1] and last[1][1] or '0-0', text(conf('aht_ms', 120000)), now_text, free_lines(), conf('sl_ms', 20000),
    open and 1 or 0, text(opens), more, look('ZCARD', K .. 'dead') }
end
