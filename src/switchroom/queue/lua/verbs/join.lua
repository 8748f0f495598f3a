-- Takes one call whose caller is on the line; callers that waited before it go first, and one whose process stopped
-- asking is forgotten.
-- Returns {'held', token, record, payload}, {'wait', place}, or where it does not wait
-- {'state', its state, its reason}, or {'reserved'}: it has a `ccBaseUrl`.
local STILL_ASKING_MS = 15000
function verbs.join(owner, lease, offer, id)
  tick()
  local c = load(id)
  if not c or c.f[STATE] ~= 'pending' then return { 'state', c and c.f[STATE] or '', c and get(c, REASON) or '' } end
  if get(c, NEED) == '@cc' then return { 'reserved' } end
  put_in('joined', c.ids, order(get(c, PRIORITY), own(c).sequence))
  put(c, JOINED, now)
  write(c)
  local before = 0
  for _, other in ipairs(look('ZRANGE', K .. 'joined', 0, -1)) do
    if other == id then break end
    local one = load(other)
    if one and get(one, JOINED) > now - STILL_ASKING_MS then before = before + 1 else take_out('joined', { other }) end
  end
  if not hands_out() or before >= free_lines() then return { 'wait', before + 1 } end
  local token = next_token()
  take(c, terms_of(owner, lease, offer, ''), token)
  return { 'held', token, stored(c)[1], payload_of(c) }
end
