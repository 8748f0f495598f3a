-- Time passes: callbacks fall due, leases, offers and wrap-ups run out, waiting calls expire or ask for less. Bounded, so
-- that a claim stays short; whatever is left is taken by the next call.
local AT_ONCE = 100

-- The calls of an index whose time has come, loaded. One without a record is dropped.
local function due(index)
  local found = {}
  for _, id in ipairs(call('ZRANGEBYSCORE', K .. index, '-inf', now_text, 'LIMIT', 0, AT_ONCE)) do
    local r = load(id)
    if r then found[#found + 1] = r else call('ZREM', K .. index, id) end
  end
  return found
end

-- After each of the flow's `relax` seconds a waiting call needs one skill less, the last of its list first.
local function relax()
  local steps = {}
  for s in (word('relax') or ''):gmatch('%d+') do steps[#steps + 1] = tonumber(s) * 1000 end
  for _, r in ipairs(due('relax')) do
    local id = r.id
    call('ZREM', K .. 'relax', id)
    if r.s == 'pending' and r.need ~= '' then
      leave(id, r.lane)
      local skills, kept = cjson.decode(call('HGET', call_key(id), 'p')).skills or {}, {}
      local dropped, following = 0, nil
      for _, after in ipairs(steps) do
        if now - r.since >= after then dropped = dropped + 1 elseif not following then following = after end
      end
      for i = 1, #skills - dropped do kept[i] = skills[i] end
      table.sort(kept)
      r.need = table.concat(kept, SEPARATOR)
      r.lane = stand(id, r.need, order(r.priority, r.sequence))
      call('HSET', call_key(id), 'k', r.need, 'l', r.lane)
      if r.need ~= '' and following then call('ZADD', K .. 'relax', text(r.since + following), id) end
      stir()
    end
  end
end

local function tick()
  for _, r in ipairs(due('expiry')) do
    if not move(r, 'expired', { reason = 'expired', detail = 'not started before its expiresAt' }) then
      call('ZREM', K .. 'expiry', r.id)
    end
  end
  for _, r in ipairs(due('scheduled')) do move(r, 'due', {}) end
  for _, r in ipairs(due('held')) do
    if r.s == 'offered' and r.answer_by > 0 and r.answer_by <= now then
      back_off(r)
      fail_attempt(r, 'no_answer', 'no_answer', r.owner .. ' did not answer the offer in time')
    else
      fail_attempt(r, 'lease_expired', 'failed', 'its holder ' .. r.owner .. ' gave no sign of life')
    end
  end
  for _, r in ipairs(due('wrapup')) do
    local reason = r.reason ~= '' and r.reason or 'failed'
    move(r, 'wrapup_over', { reason = reason, detail = 'its record was not closed in time' })
  end
  if conf('wrap_ms', 0) > 0 and call('ZREMRANGEBYSCORE', K .. 'rest', '-inf', now_text) > 0 then stir() end
  if word('relax') and word('relax') ~= '' then relax() end
end
