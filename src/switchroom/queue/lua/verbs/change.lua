-- Changes a call that waits: its priority, the time before which it is not offered (ms; 0: now) and the time when it
-- expires (ms; 0: never), each '' to stay. It keeps its order of arrival. `detail` says in words what is changed.
-- Returns {'ok', state, place (0: scheduled), estimate ms, overtaken}, {'unknown'} or {'conflict', state}.
function verbs.change(id, priority, not_before, expires, detail)
  tick()
  local c = load(id)
  if not c then return { 'unknown' } end
  local before, event = c.f[STATE], nil
  if before ~= 'pending' and before ~= 'scheduled' then return { 'conflict', before } end

  if expires ~= '' then
    put_own(c, 'expires', expires)
    if expires == 0 then take_out('expiry', c.ids) end
  end
  if priority ~= '' and priority ~= get(c, PRIORITY) then
    put(c, PRIORITY, priority)
    put_own(c, 'told', '') -- it stands elsewhere: what it was told before does not hold
  end
  if not_before ~= '' then
    if not_before > now then
      if before == 'pending' then event = 'postponed' end
      put(c, NOT_BEFORE, not_before)
      put_own(c, 'since', waits_from(not_before))
      c.score = text(not_before)
    elseif before == 'scheduled' then
      event = 'due'
      put(c, NOT_BEFORE, 0)
      put_own(c, 'since', waits_from(now))
    end
  end

  if event then
    move(c, event, { cause = 'changed', detail = detail })
  else
    tell_change(c, before, 'changed', before, '', '', detail)
    save(c)
  end

  local reply = { 'ok', c.f[STATE], 0, 0, 0 }
  if c.f[STATE] == 'pending' then reply[3], reply[4], reply[5] = tell_place(c) end
  return reply
end
