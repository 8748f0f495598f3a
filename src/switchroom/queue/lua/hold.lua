-- What a holder says of a call. ARGV: verb, task, owner, token, then by verb:
--   answer: lease ms | heartbeat: lease ms | hang_up: reason, detail, wrap-up ms | release: cause, detail
--   finish: reason, detail, outcome, result
-- Returns {'ok', state} or, for a hold that is not the call's any more, {'lost', state, reason}.
local verb, id, owner, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local hold = hold_of(id)
if not holds(hold, owner, token) then return { 'lost', hold.s, hold.r } end

if verb == 'heartbeat' then
  if hold.s == 'wrapup' then return { 'lost', hold.s, hold.r } end
  redis.call('ZADD', K .. 'held', 'XX', text(now + tonumber(ARGV[5])), id)
  return { 'ok', hold.s }
end

if verb == 'answer' then
  if hold.s == 'live' then return { 'ok', 'live' } end
  local after = move(id, 'answered', { score = text(now + tonumber(ARGV[5])) })
  if not after then return { 'lost', hold.s, hold.r } end
  return { 'ok', after }
end

if verb == 'hang_up' then
  if hold.s == 'wrapup' then return { 'ok', 'wrapup' } end
  local after = move(id, 'hung_up', { reason = ARGV[5], detail = ARGV[6], score = text(now + tonumber(ARGV[7])) })
  if after then return { 'ok', after } end
  -- the caller left before the call was answered
  move(id, 'cancelled', { reason = ARGV[5], detail = ARGV[6], cause = 'hung_up' })
  return { 'ok', 'ended' }
end

if verb == 'release' then
  local after = move(id, 'released', { cause = ARGV[5], detail = ARGV[6] })
  if not after then return { 'lost', hold.s, hold.r } end
  return { 'ok', after }
end

-- finish: a verb that ended the call before (complete, cancel) has set the reason, and it stays
local reason = hold.r ~= '' and hold.r or ARGV[5]
local set = {}
if ARGV[7] ~= '' then set = { 'oc', ARGV[7] } end
if ARGV[8] ~= '' then set[#set + 1] = 'rs'; set[#set + 1] = ARGV[8] end
if hold.s == 'live' then move(id, 'hung_up', { reason = reason, detail = ARGV[6], score = text(now) }) end
local after = move(id, 'finished', { reason = reason, detail = ARGV[6], set = set })
if not after then return { 'lost', hold.s, hold.r } end
return { 'ok', after }
