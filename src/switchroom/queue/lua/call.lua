-- ARGV: task. Returns {fields of the call, place told, estimate ms, overtaken}, or an empty list where it is unknown
tick()
local r = load(ARGV[1])
if not r then return {} end
local place, overtaken, wait_ms = 0, 0, 0
if r.s == 'pending' then
  local told
  place, overtaken, told = tell(ahead(order(r.priority, r.sequence)) + 1, r.priority, r.told)
  if told ~= '' then call('HSET', call_key(r.id), 'pt', told) end
  wait_ms = estimate(place)
end
return { call('HGETALL', call_key(r.id)), place, wait_ms, overtaken }
