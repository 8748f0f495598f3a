-- Time passes: callbacks fall due, leases, offers and wrap-ups run out, waiting calls expire or ask for less. Bounded, so
-- that a claim stays short; whatever is left is taken by the next call.
local AT_ONCE = 100

-- The calls of an index whose time has come, loaded. One without a record is dropped.
local function due(index)
  local found = {}
  local ids = look('ZRANGEBYSCORE', K .. index, '-inf', now_text, 'LIMIT', 0, AT_ONCE)
  if #ids == 0 then return found end
  fetch(ids)
  for _, id in ipairs(ids) do
    local c = known[id]
    if c then found[#found + 1] = c else take_out(index, { id }) end
  end
  return found
end

-- After each of the flow's `relax` seconds a waiting call needs one skill less, the last of its list first.
local function relax()
  local steps = {}
  for s in (word('relax') or ''):gmatch('%d+') do steps[#steps + 1] = tonumber(s) * 1000 end
  for _, c in ipairs(due('relax')) do
    local id = c.ids[1]
    take_out('relax', c.ids)
    if c.f[STATE] == 'pending' and get(c, NEED) ~= '' then
      leave(c.ids, get(c, LANE))
      local skills, kept = cjson.decode(payload_of(c)).skills or {}, {}
      local dropped, following, since = 0, nil, c.sinces[1]
      for _, after in ipairs(steps) do
        if now - since >= after then dropped = dropped + 1 elseif not following then following = after end
      end
      for i = 1, #skills - dropped do kept[i] = skills[i] end
      table.sort(kept)
      local need = table.concat(kept, SEPARATOR)
      put(c, NEED, need)
      put(c, LANE, stand(id, need, order(get(c, PRIORITY), own(c).sequence)))
      write(c)
      if need ~= '' and following then put_in('relax', c.ids, text(since + following)) end
      stirred = true
    end
  end
end

local function tick()
  for _, c in ipairs(due('expiry')) do
    if not move(c, 'expired', { reason = 'expired', detail = 'not started before its expiresAt' }) then
      take_out('expiry', c.ids)
    end
  end
  for _, c in ipairs(due('scheduled')) do move(c, 'due', {}) end
  for _, c in ipairs(due('held')) do
    local owner, answer_by = get(c, OWNER), get(c, ANSWER_BY)
    local given = c.ids[1] .. SEPARATOR .. text(get(c, TOKEN))
    if look('ZSCORE', K .. 'given', given) then
      take_out('given', { given })
      move(c, 'released', { cause = 'not_taken', detail = owner .. ' was given the call and did not take it' })
    elseif c.f[STATE] == 'offered' and answer_by > 0 and answer_by <= now then
      back_off(c)
      fail_attempt(c, 'no_answer', 'no_answer', owner .. ' did not answer the offer in time')
    else
      fail_attempt(c, 'lease_expired', 'failed', 'its holder ' .. owner .. ' gave no sign of life')
    end
  end
  for _, c in ipairs(due('wrapup')) do
    local reason = get(c, REASON)
    move(c, 'wrapup_over', { reason = reason ~= '' and reason or 'failed', detail = 'its record was not closed in time' })
  end
  if conf('wrap_ms', 0) > 0 and look('ZREMRANGEBYSCORE', K .. 'rest', '-inf', now_text) > 0 then stirred = true end
  if word('relax') and word('relax') ~= '' then relax() end
end
