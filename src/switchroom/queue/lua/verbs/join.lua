-- Takes one call whose caller is on the line; callers that waited before it go first, and one whose process stopped
-- asking is forgotten.
-- Returns {'held', {task, token, record, payload}}, {'wait', place}, or where it does not wait
-- {'state', its state, its reason}, or {'reserved'}: it has a `ccBaseUrl`.
local STILL_ASKING_MS = 15000
function verbs.join(owner, lease, offer, id)
  tick()
  local c = load(id)
  if not c or c.f[STATE] ~= 'pending' then return { 'state', c and c.f[STATE] or '', c and get(c, REASON) or '' } end
  if get(c, NEED) == '@cc' then return { 'reserved' } end
  place_in('joined', id, order(get(c, PRIORITY), c.f[SEQUENCE]))
  put(c, JOINED, now)
  write(c)
  local before = 0
  for _, other in ipairs(look('ZRANGE', K .. 'joined', 0, -1)) do
    if other == id then break end
    local one = load(other)
    if one and get(one, JOINED) > now - STILL_ASKING_MS then before = before + 1 else place_in('joined', other, false) end
  end
  if not hands_out() or before >= free_lines() then return { 'wait', before + 1 } end
  local token = tokens(1)
  take(c, terms_of(owner, lease, offer, ''), token)
  return { 'held', { id, token, packed(c), payload_of(c) } }
end
