-- A page of the dead letters, newest first: from place `first` to place `last`.
-- Returns {how many there are, {{task, record, payload}, …}}.
function verbs.dead(first, last)
  tick()
  local page = {}
  for _, id in ipairs(look('ZREVRANGE', K .. 'dead', first, last)) do
    local c = load(id)
    page[#page + 1] = { id, stored(c)[1], payload_of(c) }
  end
  return { look('ZCARD', K .. 'dead'), page }
end
