-- Returns {record, payload, place told, estimate ms, overtaken} of a call, or an empty list where it is unknown.
function verbs.call(id)
  tick()
  local c = load(id)
  if not c then return {} end
  local place, wait_ms, overtaken = 0, 0, 0
  if c.f[STATE] == 'pending' then place, wait_ms, overtaken = tell_place(c) end
  return { stored(c)[1], payload_of(c), place, wait_ms, overtaken }
end
