-- Takes at most `want` calls; `at_once` is '1' if they are answered at once. `wait_ms` is how long the holder waits if
-- there is nothing ('' not at all), `since` since when it is idle ('' now), `direct` '1' if it may be given a call while
-- it waits, `rests` '1' if it takes none before its wrap-up time is over. `finished` are the calls that it finishes
-- first: a list of {task, token, reason, detail, outcome, result}.
-- Returns {list of {task, token, record, payload}, tasks that it had lost, idle since, ms that it rests}.
function verbs.claim(owner, lease, offer, want, at_once, skills, wait_ms, inbox, since, direct, rests, finished)
  tick()
  local lost = {}
  if #finished > 0 then
    local ids = {}
    for i, row in ipairs(finished) do ids[i] = row[1] end
    fetch(ids)
    for _, row in ipairs(finished) do
      local c = records[row[1]]
      if not holds(c, owner, row[2]) or not finish(c, row[3], row[4], row[5], row[6]) then lost[#lost + 1] = row[1] end
    end
  end

  if since == '' then since = now_text end
  if rests == '1' then
    local available = tonumber(look('ZSCORE', K .. 'available', owner) or 0)
    if available > now then return { {}, lost, since, available - now } end
  end

  local held, free = {}, 0
  if want > 0 and hands_out() then
    free = free_lines()
    want = min(free, want)
  end
  if free > 0 and want > 0 then
    local EXTRA = 64 -- calls of a lane that are looked at beyond those wanted, when some may be backing off
    local refusals = look('EXISTS', K .. 'backoff') == 1
    local careful = refusals or #lanes() >= MOST_LANES
    local first, ids, payloads = heads(skills, want + (careful and EXTRA or 0)), {}, {}
    for i, head in ipairs(first) do ids[i] = head[1] end
    fetch(ids)
    for _, head in ipairs(first) do
      if #held >= want then break end
      local c = records[head[1]]
      local mine = c and (head[3] ~= MIXED or covers(skills, get(c, NEED)))
      if mine and not (refusals and backing_off(owner, c.id)) then
        held[#held + 1] = c
        payloads[#payloads + 1] = K .. 'p:' .. c.id
      end
    end
    if #held > 0 then
      local token, terms = tokens(#held), terms_of(owner, lease, offer, at_once)
      payloads = call('MGET', unpack(payloads))
      for i, c in ipairs(held) do
        take(c, terms, token + i - 1)
        held[i] = { c.id, token + i - 1, packed(c), payloads[i] }
      end
      -- What is left may be for another holder that waits; what this one may not take found the others when it came.
      if free > #held then stirred = true end
    end
  end

  if wait_ms ~= '' then
    local waiter = owner .. SEPARATOR .. inbox
    if #held > 0 then
      forget_waiter(waiter, skills)
      call('LREM', K .. 'w:' .. inbox, 0, pack({ owner }))
    else
      call('ZADD', K .. 'idle:' .. skills, since, waiter)
      call('SADD', K .. 'profiles', skills)
      call('HSET', K .. 'waiting', waiter,
        text(now + wait_ms) .. ':' .. lease .. ':' .. offer .. ':' .. at_once .. ':' .. direct)
    end
  end
  return { held, lost, since, 0 }
end
