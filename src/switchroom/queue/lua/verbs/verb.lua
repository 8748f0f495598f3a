-- The verbs of the API: `what`, task, and then by verb
--   toggle: '1' | '0' | '' (flip) | complete: outcome, result, wrap-up ms | abandon | remove | clear: at most this many
--   cancel: detail, wrap-up ms, '1' if the caller hung up
-- Returns {'ok', task, state, reason}, {'conflict', state}, {'unknown'}, {'many', live calls}; toggle {'ok', 0 | 1};
--         clear {'ok', n, left}
function verbs.verb(what, id, ...)
  tick()
  local first, second, third = ...

  if what == 'toggle' then
    local value = first
    if value == '' then value = conf('enabled', 1) == 1 and '0' or '1' end
    call('HSET', K .. 'conf', 'enabled', value)
    settings, numbers = nil, {}
    stirred = true
    return { 'ok', tonumber(value) }
  end

  if what == 'clear' then
    local ids, gone = heads(nil, first), 0
    for _, c in ipairs(alike({ unpack(ids, 1, min(first, #ids)) })) do
      if move(c, 'removed', { reason = 'removed', cause = 'cleared' }) then gone = gone + c.n end
    end
    return { 'ok', gone, pending_count() }
  end

  if what == 'complete' and id == '' then
    local live = {}
    for _, task in ipairs(look('ZRANGE', K .. 'held', 0, -1)) do
      if load(task).f[STATE] == 'live' then live[#live + 1] = task end
    end
    if #live ~= 1 then return { 'many', #live } end
    id = live[1]
  end

  local c = load(id)
  if not c then return { 'unknown' } end
  local state, after = c.f[STATE], nil
  if state == 'ended' or (state == 'wrapup' and what ~= 'remove') then return { 'ok', id, state, get(c, REASON) } end

  if what == 'complete' then
    if T[state].hung_up then
      if first ~= '' then put(c, OUTCOME, first) end
      if second ~= '' then put(c, RESULT, second) end
    end
    after = move(c, 'hung_up', { reason = 'completed', cause = 'completed', score = text(now + third) })
  elseif what == 'cancel' then
    local left = third == '1'
    local cause = left and 'caller_hung_up' or 'cancelled'
    after = move(c, 'cancelled', { reason = left and 'abandoned' or 'cancelled', cause = cause, detail = first })
      or move(c, 'hung_up', { reason = left and 'completed' or 'cancelled', cause = cause, detail = first,
        score = text(now + second) })
  elseif what == 'abandon' then
    after = move(c, 'cancelled', { reason = 'abandoned', cause = 'caller_hung_up', detail = 'the caller hung up' }) or state
  elseif what == 'remove' then
    after = move(c, 'removed', { reason = 'removed' })
  end
  if not after then return { 'conflict', c.f[STATE] } end
  return { 'ok', id, after, get(c, REASON) }
end
