-- What a holder says of a call. ARGV: verb, task, owner, token, then by verb:
--   answer: lease ms | heartbeat: lease ms | hang_up: reason, detail, wrap-up ms | release, refuse: cause, detail
--   finish: reason, detail, outcome, result
-- Returns {'ok', state} or, for a hold that is not the call's any more, {'lost', state, reason}.
local verb, id, owner, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local r = load(id)
if not holds(r, owner, token) then return { 'lost', r and r.s or '', r and r.reason or '' } end
local function lost() return { 'lost', r.s, r.reason } end

if verb == 'heartbeat' then
  if r.s == 'wrapup' then return lost() end
  local until_ms = now + tonumber(ARGV[5])
  if r.s == 'offered' and r.answer_by > 0 then until_ms = min(until_ms, r.answer_by) end
  call('ZADD', K .. 'held', 'XX', text(until_ms), id)
  return { 'ok', r.s }
end

if verb == 'answer' then
  if r.s == 'live' then return { 'ok', 'live' } end
  local late = r.answer_by > 0 and r.answer_by <= now
  if late or not move(r, 'answered', { score = text(now + tonumber(ARGV[5])) }) then return lost() end
  return { 'ok', r.s }
end

if verb == 'hang_up' then
  if r.s == 'wrapup' then return { 'ok', 'wrapup' } end
  local after = move(r, 'hung_up', { reason = ARGV[5], detail = ARGV[6], score = text(now + tonumber(ARGV[7])) })
  -- the caller left before the call was answered
  if not after then move(r, 'cancelled', { reason = ARGV[5], detail = ARGV[6], cause = 'hung_up' }) end
  return { 'ok', r.s }
end

if verb == 'release' then
  if not move(r, 'released', { cause = ARGV[5], detail = ARGV[6] }) then return lost() end
  return { 'ok', r.s }
end

if verb == 'refuse' then
  if r.s ~= 'offered' then return lost() end
  back_off(r)
  move(r, 'refused', { detail = ARGV[5] })
  return { 'ok', r.s }
end

if not finish(r, ARGV[5], ARGV[6], ARGV[7], ARGV[8]) then return lost() end
return { 'ok', r.s }
