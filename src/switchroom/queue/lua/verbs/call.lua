-- Returns {record, payload, place told, estimate ms, overtaken} of a call, or an empty list where it is unknown.
function verbs.call(id)
  tick()
  local c = load(id)
  if not c then return {} end
  local place, overtaken, wait_ms = 0, 0, 0
  if c.f[STATE] == 'pending' then
    local told
    local priority = get(c, PRIORITY)
    place, overtaken, told = tell(ahead(order(priority, c.f[SEQUENCE])) + 1, priority, get(c, TOLD))
    if told ~= '' then
      put(c, TOLD, told)
      write(c)
    end
    wait_ms = estimate(place)
  end
  return { packed(c), payload_of(c), place, wait_ms, overtaken }
end
