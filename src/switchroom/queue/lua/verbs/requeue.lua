-- A dead letter comes back as a new call with the old one's content and place in the line; the old one stays ended.
-- `alone` is '1' to refuse a caller who has another call that has not ended.
-- Returns {'ok', new task, state}, {'unknown'}, {'state', state} or {'duplicate', task}.
function verbs.requeue(dead_id, id, alone)
  local dead = load(dead_id)
  if not dead then return { 'unknown' } end
  local back = get(dead, CAME_BACK)
  if back ~= '' then
    local c = load(back)
    return { 'ok', back, c and c.f[STATE] or 'ended' }
  end
  if not look('ZSCORE', K .. 'dead', dead_id) then return { 'state', dead.f[STATE] } end
  local caller = dead.callers[1]
  if alone == '1' then
    local other = call('HGET', K .. 'ids', caller)
    local c = other and load(other)
    if c and c.f[STATE] ~= 'ended' then return { 'duplicate', other } end
  end
  local stored = payload_of(dead)
  local payload = cjson.decode(stored)
  local skills = payload.skills or {}
  table.sort(skills)
  local need = payload.cc and '@cc' or table.concat(skills, SEPARATOR)
  local c = create(id, caller, get(dead, PRIORITY), own(dead).sequence, need, 0, dead.f[MOST], get(dead, HOOK), now, stored)
  put(c, CAME_FROM, dead_id)
  move(c, 'requeued', { detail = 'again, after ' .. dead_id })
  put(dead, CAME_BACK, id)
  write(dead)
  take_out('dead', dead.ids)
  forget_later(dead.ids)
  return { 'ok', id, c.f[STATE] }
end
