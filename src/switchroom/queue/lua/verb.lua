-- The verbs of the API. ARGV: verb, task, then by verb: toggle: '1' | '0' | '' (flip)
--   complete: outcome, result, wrap-up ms | cancel: detail, wrap-up ms, '1' if the caller hung up | abandon | remove
--   clear: at most this many
-- Returns {'ok', task, state, reason}, {'conflict', state}, {'unknown'}, {'many', live calls}; toggle {'ok', 0 | 1};
--         clear {'ok', n, left}
tick()
local verb, id = ARGV[1], ARGV[2]

if verb == 'toggle' then
  local value = ARGV[3]
  if value == '' then value = conf('enabled', 1) == 1 and '0' or '1' end
  call('HSET', K .. 'conf', 'enabled', value)
  settings = nil
  stir()
  return { 'ok', tonumber(value) }
end

if verb == 'clear' then
  local most = tonumber(ARGV[3])
  local gone = 0
  for _, head in ipairs(heads(nil, most)) do
    if gone == most then break end
    if move(load(head[1]), 'removed', { reason = 'removed', cause = 'cleared' }) then gone = gone + 1 end
  end
  return { 'ok', gone, pending_count() }
end

if verb == 'complete' and id == '' then
  local live = {}
  for _, task in ipairs(call('ZRANGE', K .. 'held', 0, -1)) do
    if call('HGET', call_key(task), 's') == 'live' then live[#live + 1] = task end
  end
  if #live ~= 1 then return { 'many', #live } end
  id = live[1]
end

local r = load(id)
if not r then return { 'unknown' } end
if r.s == 'ended' or (r.s == 'wrapup' and verb ~= 'remove') then return { 'ok', id, r.s, r.reason } end

local after
if verb == 'complete' then
  if T[r.s .. ':hung_up'] then
    if ARGV[3] ~= '' then put(r, 'oc', ARGV[3]) end
    if ARGV[4] ~= '' then put(r, 'rs', ARGV[4]) end
  end
  after = move(r, 'hung_up', { reason = 'completed', cause = 'completed', score = text(now + tonumber(ARGV[5])) })
elseif verb == 'cancel' then
  local left = ARGV[5] == '1'
  local cause = left and 'caller_hung_up' or 'cancelled'
  after = move(r, 'cancelled', { reason = left and 'abandoned' or 'cancelled', cause = cause, detail = ARGV[3] })
    or move(r, 'hung_up', { reason = left and 'completed' or 'cancelled', cause = cause, detail = ARGV[3],
      score = text(now + tonumber(ARGV[4])) })
elseif verb == 'abandon' then
  after = move(r, 'cancelled', { reason = 'abandoned', cause = 'caller_hung_up', detail = 'the caller hung up' }) or r.s
elseif verb == 'remove' then
  after = move(r, 'removed', { reason = 'removed' })
end
if not after then return { 'conflict', r.s } end
return { 'ok', id, after, r.reason }
