-- ARGV: first, last place of the pending page
-- Returns {enabled, lines, pending, scheduled, {fields of held calls}, {fields of the page's calls}, {stats}, last event ID, aht ms, now, free lines, service level ms}
tick()
local function fields(id)
  local v = redis.call('HMGET', call_key(id), 's', 'id', 'e', 'li', 'of', 'n', 'o')
  return { id, v[1] or '', v[2] or '', v[3] or '0', v[4] or '0', v[5] or '0', v[6] or '0', v[7] or '' }
end
local held, page = {}, {}
for _, index in ipairs({ 'held', 'wrapup' }) do
  for _, id in ipairs(redis.call('ZRANGE', K .. index, 0, 999)) do held[#held + 1] = fields(id) end
end
for _, id in ipairs(redis.call('ZRANGE', K .. 'pending', ARGV[1], ARGV[2])) do page[#page + 1] = fields(id) end
local last = redis.call('XREVRANGE', K .. 'events', '+', '-', 'COUNT', 1)
local free = conf('lines', 4) - redis.call('ZCARD', K .. 'held')
return { conf('enabled', 1), conf('lines', 4), redis.call('ZCARD', K .. 'pending'), redis.call('ZCARD', K .. 'scheduled'),
  held, page, redis.call('HGETALL', K .. 'stats'), last[1] and last[1][1] or '0-0', text(conf('aht_ms', 120000)), text(now), free,
  conf('sl_ms', 20000) }
