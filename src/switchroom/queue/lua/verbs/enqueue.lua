-- `known_key` is the idempotency key ('' for none), kept for `key_s` seconds with the digest of what came; `hook` is '1'
-- if the call has a callback URL; `revision` that of the flow which these rules were read from ('' for unchecked);
-- `need` the skills it needs.
-- Returns: {'ok' | 'joined' | 'again', task, state, pending count, place, estimate ms, overtaken}, {'duplicate', task},
--          {'mismatch'}, {'full'}, {'stale'}
function verbs.enqueue(id, caller, payload, priority, not_before, expires, most, duplicates, cap, known_key, digest, key_s,
                       hook, revision, need)
  if revision ~= '' and call('HGET', K .. 'doc', 'rev') ~= revision then return { 'stale' } end

  local key, waiting = K .. 'idem:' .. known_key, nil
  if known_key ~= '' then
    local stored = call('GET', key)
    if stored then
      local known_digest, joined, reply = unpack(cmsgpack.unpack(stored))
      if known_digest ~= digest then return { 'mismatch' } end
      return { joined and 'joined' or 'again', unpack(reply) }
    end
  end

  local function answer(how, c)
    local reply = { c.ids[1], c.f[STATE], waiting or pending_count(), 0, 0, 0 }
    if c.f[STATE] == 'pending' then
      reply[4], reply[5], reply[6] = tell_place(c, how == 'ok' and waiting == 1)
    end
    if known_key ~= '' then call('SET', key, pack({ digest, how == 'joined', reply }), 'EX', key_s) end
    return { how, unpack(reply) }
  end

  if duplicates ~= 'allow' then
    local earlier = call('HGET', K .. 'ids', caller)
    local c = earlier and load(earlier)
    if c and c.f[STATE] ~= 'ended' then
      if duplicates == 'reject' then return { 'duplicate', earlier } end
      if c.f[STATE] == 'pending' or c.f[STATE] == 'scheduled' then
        writes[#writes + 1] = K .. 'p:' .. earlier
        writes[#writes + 1] = payload
        c.payload = payload
        if get(c, HOOK) ~= hook then put(c, HOOK, hook) end
        if get(c, NEED) ~= need then put(c, NEED, need) end
        save(c)
      end
      return answer('joined', c)
    end
  end

  waiting = pending_count()
  if cap > 0 and waiting + look('ZCARD', K .. 'scheduled') >= cap then return { 'full' } end

  local since = waits_from(max(now, not_before))
  local longest_ms = conf('max_wait_ms', 0)
  if expires == 0 and longest_ms > 0 then expires = since + longest_ms end
  local sequence = call('HINCRBY', K .. 'conf', 'seq', 1)
  local c = create(id, caller, priority, sequence, need, expires, most, hook, since, payload)
  if not_before > 0 then put(c, NOT_BEFORE, not_before) end
  if move(c, not_before > now and 'scheduled' or 'enqueued', { score = text(not_before) }) == 'pending' then
    waiting = waiting + 1
  end
  return answer('ok', c)
end
