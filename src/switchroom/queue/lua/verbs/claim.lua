-- Takes at most `want` calls; `at_once` is '1' if they are answered at once. `wait_ms` is how long the holder waits if
-- there is nothing ('' not at all), `since` since when it is idle ('' now), `direct` '1' if it may be given a call while
-- it waits, `rests` '1' if it takes none before its wrap-up time is over. `finished` are the calls that it finishes
-- first: a list of {token, reason, detail, outcome, result, {task, …}}.
-- Returns {tasks, their token, their records, their payloads, {task, token} of those it had lost, idle since, ms that it rests}.
local EXTRA = 64 -- calls of a lane that are looked at beyond those wanted, when some may be backing off

-- The tasks of the first `want` calls that this holder may take.
local function takeable(owner, skills, want)
  local refusals = look('EXISTS', K .. 'backoff') == 1
  local careful = refusals or #lanes() >= MOST_LANES
  local first, lane_of = heads(skills, want + (careful and EXTRA or 0))
  if not careful then
    for i = want + 1, #first do first[i] = nil end
    return first
  end
  fetch(first)
  local ids = {}
  for i, id in ipairs(first) do
    if #ids >= want then break end
    local c = load(id)
    local mine = c and (lane_of[i] ~= MIXED or covers(skills, get(c, NEED)))
    if mine and not (refusals and backing_off(owner, id)) then ids[#ids + 1] = id end
  end
  return ids
end

function verbs.claim(owner, lease, offer, want, at_once, skills, wait_ms, inbox, since, direct, rests, finished)
  tick()
  local lost = {}
  for _, alike_in_end in ipairs(finished) do
    local token, reason, detail, outcome, result, ids = unpack(alike_in_end)
    local kept = {}
    for _, c in ipairs((alike(ids))) do
      if holds(c, owner, token) and finish(c, reason, detail, outcome, result) then
        for _, id in ipairs(c.ids) do kept[id] = true end
      end
    end
    for _, id in ipairs(ids) do
      if not kept[id] then lost[#lost + 1] = { id, token } end
    end
  end

  if since == '' then since = now_text end
  if rests == '1' then
    local available = tonumber(look('ZSCORE', K .. 'available', owner) or 0)
    if available > now then return { {}, 0, {}, {}, lost, since, available - now } end
  end

  local free = want > 0 and hands_out() and free_lines() or 0
  local ids, token, records, payloads = {}, 0, {}, {}
  if free > 0 then ids = takeable(owner, skills, min(free, want)) end
  if #ids > 0 then
    local terms, keys = terms_of(owner, lease, offer, at_once), {}
    token = next_token()
    local found
    found, ids = alike(ids)
    for _, c in ipairs(found) do
      take(c, terms, token)
      local rows, at = stored(c), c.at
      for i = 1, c.n do records[at[i]] = rows[i] end
    end
    for i, id in ipairs(ids) do keys[i] = K .. 'p:' .. id end
    payloads = call('MGET', unpack(keys))
    -- What is left may be for another holder that waits; what this one may not take found the others when it came.
    if free > #ids then stirred = true end
  end

  if wait_ms ~= '' then
    local waiter = owner .. SEPARATOR .. inbox
    if #ids > 0 then
      forget_waiter(waiter, skills)
      call('LREM', K .. 'w:' .. inbox, 0, pack({ owner }))
    else
      call('ZADD', K .. 'idle:' .. skills, since, waiter)
      call('SADD', K .. 'profiles', skills)
      call('HSET', K .. 'waiting', waiter,
        text(now + wait_ms) .. ':' .. lease .. ':' .. offer .. ':' .. at_once .. ':' .. direct)
    end
  end
  return { ids, token, records, payloads, lost, since, 0 }
end
