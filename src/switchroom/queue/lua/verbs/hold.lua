-- What a holder says of a call: `what`, and then
--   took, answer, heartbeat: lease ms | hang_up: reason, detail, wrap-up ms | release: cause, detail | refuse: detail
--   finish: reason, detail, outcome, result | note: cause, detail
-- Returns {'ok', state} or, for a hold that is not the call's any more, {'lost', state, reason}.
function verbs.hold(what, id, owner, token, ...)
  local c = load(id)
  local function lost() return { 'lost', c and c.f[STATE] or '', c and get(c, REASON) or '' } end
  if not holds(c, owner, token) then return lost() end
  local state, answer_by, first, second = c.f[STATE], get(c, ANSWER_BY), ...

  if what == 'heartbeat' or what == 'took' then
    if state == 'wrapup' then return lost() end
    local until_ms = now + first
    if state == 'offered' and answer_by > 0 then until_ms = min(until_ms, answer_by) end
    if what == 'took' then take_out('given', { id .. SEPARATOR .. text(token) }) end
    put_in('held', c.ids, text(until_ms))
  elseif what == 'answer' then
    if state == 'live' then return { 'ok', 'live' } end
    local late = answer_by > 0 and answer_by <= now
    if late or not move(c, 'answered', { score = text(now + first) }) then return lost() end
  elseif what == 'hang_up' then
    if state == 'wrapup' then return { 'ok', 'wrapup' } end
    local _, _, wrapup_ms = ...
    local after = move(c, 'hung_up', { reason = first, detail = second, score = text(now + wrapup_ms) })
    -- the caller left before the call was answered
    if not after then move(c, 'cancelled', { reason = first, detail = second, cause = 'hung_up' }) end
  elseif what == 'note' then -- something that changes no state: it stands between the changes, in their order
    if state ~= 'live' then return lost() end
    tell_change(c, state, first, state, owner, '', second)
    write(c)
  elseif what == 'release' then
    if not move(c, 'released', { cause = first, detail = second }) then return lost() end
  elseif what == 'refuse' then
    if state ~= 'offered' then return lost() end
    back_off(c)
    move(c, 'refused', { detail = first })
  elseif not finish(c, ...) then
    return lost()
  end
  return { 'ok', c.f[STATE] }
end
