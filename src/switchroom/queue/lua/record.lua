-- One call's record: an array in MessagePack under `c:` + task, whose places (STATE, CALLER, …) and defaults stand above
-- this file; places at its end that hold their defaults are left out. What the call carries unchanged is under `p:` + task.
-- Loaded once a run, moved by events of the table, and written once at the end of the run.

-- Which index holds the calls of a state; pending ones stand in the line.
local INDEX = { scheduled = 'scheduled', offered = 'held', live = 'held', wrapup = 'wrapup', ended = 'ended' }

local function get(c, place)
  local value = c.f[place]
  if value == nil then return DEFAULTS[place] end
  return value
end

local function put(c, place, value)
  local f = c.f
  for gap = #f + 1, place - 1 do f[gap] = DEFAULTS[gap] end
  f[place] = value
  c.packed = nil
end

local function known(id, stored)
  local f = cmsgpack.unpack(stored)
  local c = { id = id, f = f, from = f[STATE], packed = stored }
  records[id] = c
  return c
end

local function load(id)
  if records[id] then return records[id] end
  local stored = call('GET', K .. 'c:' .. id)
  return stored and known(id, stored) or nil
end

-- Reads many at once, so that `load` finds them.
local function fetch(ids)
  local wanted, missing = {}, {}
  for _, id in ipairs(ids) do
    if not records[id] then
      wanted[#wanted + 1] = K .. 'c:' .. id
      missing[#missing + 1] = id
    end
  end
  for first = 1, #wanted, MOST_WORDS do
    for i, stored in ipairs(call('MGET', unpack(wanted, first, min(first + MOST_WORDS - 1, #wanted)))) do
      if stored then known(missing[first + i - 1], stored) end
    end
  end
end

-- A call that is not in the queue yet.
local function create(id, caller, priority, sequence, need, expires, most, hook, since, payload)
  local c = { id = id, from = '', f = { '', caller, sequence, now, most }, payload = payload }
  records[id] = c
  if priority ~= 0 then put(c, PRIORITY, priority) end
  if since ~= now then put(c, SINCE, since) end
  if need ~= '' then put(c, NEED, need) end
  if hook ~= '' then put(c, HOOK, hook) end
  if expires ~= 0 then put(c, EXPIRES, expires) end
  call('HSET', K .. 'ids', caller, id)
  writes[#writes + 1] = K .. 'p:' .. id
  writes[#writes + 1] = payload
  return c
end

local function payload_of(c)
  if not c.payload then c.payload = call('GET', K .. 'p:' .. c.id) end
  return c.payload
end

local function since_of(c)
  local since = c.f[SINCE] or 0
  return since > 0 and since or c.f[ENQUEUED]
end

-- One line of a call's history, an array that ends with its last value: time, state, cause, attempt, owner, reason, detail.
local function line_of_history(state, cause, attempt, owner, reason, detail)
  local head = '[' .. now_text .. ',"' .. state .. '",' .. cjson.encode(cause)
  if detail ~= '' or reason ~= '' then
    return head .. ',' .. attempt .. ',' .. cjson.encode(owner) .. ',"' .. reason .. '",' .. cjson.encode(detail) .. ']'
  end
  if owner ~= '' then return head .. ',' .. attempt .. ',' .. cjson.encode(owner) .. ']' end
  if attempt > 0 then return head .. ',' .. attempt .. ']' end
  return head .. ']'
end

-- What changed, for the event stream: changes that differ in their call alone stand together, as {state, cause, owner,
-- previous, attempt, reason, detail, {task, caller, …}}; what becomes of one call stays in order. `more` (see `step`)
-- keeps what is the same for the next call that it moves. Returns the line of the call's history.
local CHANGES_AN_ENTRY = 32
local function tell_change(c, event, state, previous, owner, more)
  local f = c.f
  local attempt = f[ATTEMPT] or 0
  local alike = more[event]
  if not alike or alike.previous ~= previous or alike.attempt ~= attempt or alike.owner ~= owner then
    local cause, reason, detail = more.cause or event, more.reason or '', more.detail or ''
    alike = { previous = previous, attempt = attempt, owner = owner, place = 0,
      change = { state, cause, owner, previous, attempt, reason, detail },
      line = line_of_history(state, cause, attempt, owner, reason, detail) }
    more[event] = alike
  end
  local calls = alike.calls
  if alike.place <= (c.change or 0) or #calls >= CHANGES_AN_ENTRY * 2 then
    local change = { unpack(alike.change) }
    calls = {}
    change[8] = calls
    alike.calls, alike.place = calls, #changes + 1
    changes[alike.place] = change
  end
  c.change = alike.place
  calls[#calls + 1] = c.id
  calls[#calls + 1] = f[CALLER]
  if f[HOOK] == '1' then hooked = true end
  return alike.line
end

-- Of something that changes no state.
local function keep_in_history(c, line)
  local past = c.f[PAST] or ''
  put(c, PAST, past == '' and line or past .. ',' .. line)
end

-- The outbox holds only what a webhook may want (a run that touches no call with a callback URL, in a flow without
-- endpoints, writes none), and is emptied by whoever turned an entry into messages: unlike the event stream it never
-- forgets by length.
local function write_changes()
  local outbox = hooked or conf('hooks', 0) > 0
  local entry, many = {}, 0
  local function write_entry()
    local stored = pack(entry)
    local id = call('XADD', K .. 'events', 'MAXLEN', '~', 50000, '*', 'b', stored)
    if outbox then call('XADD', K .. 'outbox', id, 'b', stored) end
    entry, many = {}, 0
  end
  for _, alike in ipairs(changes) do
    local more = #alike[8] / 2
    if many + more > CHANGES_AN_ENTRY then write_entry() end
    entry[#entry + 1] = alike
    many = many + more
  end
  write_entry()
end

-- Moves a loaded call by an event. `more` holds: owner, cause, reason, detail, score (in the new state's index); several
-- calls that the same becomes of share it. Returns the new state, or nil where the table does not allow it.
local function step(c, event, more)
  local f = c.f
  local before = f[STATE]
  local after = T[before][event]
  if not after then return nil end
  local owner_before, live = f[OWNER] or '', f[LIVE] or 0
  local owner = more.owner or owner_before
  local line = tell_change(c, event, after, before, owner, more)
  f[STATE] = after
  local past = f[PAST] or ''
  f[PAST] = past == '' and line or past .. ',' .. line
  c.score = more.score or c.score
  local reason = more.reason or ''
  if reason ~= '' then put(c, REASON, reason) end
  if more.detail and more.detail ~= '' then put(c, DETAIL, more.detail) end
  if after == 'offered' then
    put(c, OFFERED, now)
  elseif after == 'live' then
    if live == 0 then answered(since_of(c)) end -- a second attempt is no second answer
    put(c, LIVE, now)
  elseif after == 'wrapup' then
    put(c, WRAPUP, now)
  elseif after == 'ended' then
    put(c, ENDED, now)
    over(reason, live, since_of(c))
  end
  if before == 'live' and live > 0 then
    if after == 'wrapup' or after == 'ended' then handled(live) end
    local rest = conf('wrap_ms', 0)
    if rest > 0 and after == 'wrapup' then
      place_in('rest', c.id, text(now + rest))
      place_in('available', owner, text(now + rest))
    end
  end
  if after == 'pending' or after == 'scheduled' then owner = '' end
  if owner ~= owner_before then put(c, OWNER, owner) end
  return after
end

local function relaxes(c)
  local need = get(c, NEED)
  return need ~= '' and need:sub(1, 1) ~= '@' and word('relax') and word('relax') ~= ''
end

-- Has the record written at the end of the run.
local function write(c)
  if not c.written then
    c.written = true
    records[#records + 1] = c
  end
  c.packed = nil
end

-- The record as it is stored.
local function packed(c)
  if not c.packed then c.packed = pack(c.f) end
  return c.packed
end

-- Notes the record to be written, and changes its place in the indexes.
local function save(c)
  local f, from, id = c.f, c.from, c.id
  local to = f[STATE]
  local index_before, index = INDEX[from], INDEX[to]
  if from == 'pending' then
    leave(id, f[LANE] or '')
    if to ~= 'pending' and (f[NEED] or '') ~= '' then place_in('relax', id, false) end
    if (f[JOINED] or 0) > 0 then place_in('joined', id, false) end
  elseif from ~= '' and index_before ~= index then
    place_in(index_before, id, false)
  end
  if to == 'pending' then
    local lane = stand(id, get(c, NEED), order(get(c, PRIORITY), f[SEQUENCE]))
    if lane ~= get(c, LANE) then put(c, LANE, lane) end
    if relaxes(c) then place_in('relax', id, now_text) end
    stirred = true
  elseif to == 'ended' then
    place_in(c.dead and 'dead' or 'ended', id, now_text)
    over_with[#over_with + 1] = c
  elseif c.score then
    place_in(index, id, c.score)
  end
  if (f[EXPIRES] or 0) > 0 and (f[LIVE] or 0) == 0 then
    place_in('expiry', id, (to == 'pending' or to == 'scheduled') and text(f[EXPIRES]))
  end
  if index_before == 'held' and index ~= 'held' then stirred = true end
  c.from = to
  write(c)
end

-- Writes every record that changed, and frees the callers' IDs of the calls that are over.
local function write_records()
  for _, c in ipairs(records) do
    writes[#writes + 1] = K .. 'c:' .. c.id
    writes[#writes + 1] = packed(c)
  end
  for first = 1, #writes, MOST_WORDS do call('MSET', unpack(writes, first, min(first + MOST_WORDS - 1, #writes))) end
  for first = 1, #over_with, MOST_WORDS do
    local callers, free = {}, {}
    for i = first, min(first + MOST_WORDS - 1, #over_with) do callers[#callers + 1] = over_with[i].f[CALLER] end
    for i, id in ipairs(call('HMGET', K .. 'ids', unpack(callers))) do
      if id == over_with[first + i - 1].id then free[#free + 1] = callers[i] end
    end
    if #free > 0 then call('HDEL', K .. 'ids', unpack(free)) end
  end
end

local function move(c, event, more)
  local after = step(c, event, more)
  if after then save(c) end
  return after
end

-- The place of a pending call as it is told, its estimate in ms, and whether it was overtaken.
local function tell_place(c)
  local rank = get(c, PRIORITY)
  local place, overtaken, told = tell(ahead(order(rank, c.f[SEQUENCE])) + 1, rank, get(c, TOLD))
  if told ~= '' then
    put(c, TOLD, told)
    write(c)
  end
  return place, estimate(place), overtaken
end

-- Is this hold still the call's? Every write of a holder passes here: an older token (a number) is refused.
local function holds(c, owner, token)
  if not c or get(c, OWNER) ~= owner or get(c, TOKEN) ~= token then return false end
  local state = c.f[STATE]
  return state == 'offered' or state == 'live' or state == 'wrapup'
end

-- After an unanswered offer or a refusal the same holder is not offered the same call for a while, each
-- time twice as long, at most five minutes.
local MOST_BACKOFF_MS = 300000
local function back_off(c)
  local first, owner = conf('backoff_ms', 5000), get(c, OWNER)
  if first <= 0 or owner == '' then return end
  local refusals, at = get(c, REFUSALS), 1
  while refusals[at] and refusals[at] ~= owner do at = at + 2 end
  local times = (refusals[at + 1] or 0) + 1
  put(c, REFUSALS, { unpack(refusals) })
  c.f[REFUSALS][at], c.f[REFUSALS][at + 1] = owner, times
  place_in('backoff', owner .. SEPARATOR .. c.id, text(now + min(MOST_BACKOFF_MS, first * 2 ^ min(times - 1, 16))))
end

-- An attempt that came to nothing (its holder died, or nobody answered): back to its place, after the flow's delay; the
-- last one ends the call, and puts it among the dead letters.
local function fail_attempt(c, cause, reason, detail)
  local failures = get(c, FAILURES) + 1
  put(c, FAILURES, failures)
  if failures >= c.f[MOST] then
    c.dead = true
    move(c, 'exhausted', { reason = reason, cause = cause, detail = detail })
    return
  end
  local delay = conf('retry_ms', 0)
  if delay > 0 then
    move(c, 'postponed', { cause = cause, detail = detail, score = text(now + delay) })
  else
    move(c, cause, { detail = detail })
  end
end

-- The holder closes a call. A verb that ended it before (complete, cancel) has set the reason, and it stays.
local function finish(c, reason, detail, outcome, result)
  local f = c.f
  if outcome ~= '' then put(c, OUTCOME, outcome) end
  if result ~= '' then put(c, RESULT, result) end
  if f[STATE] == 'wrapup' and (f[REASON] or '') ~= '' then reason = f[REASON] end
  local key = detail == '' and reason or reason .. SEPARATOR .. detail
  local more = endings[key]
  if not more then
    more = { reason = reason, detail = detail, score = now_text }
    endings[key] = more
  end
  if f[STATE] == 'live' then step(c, 'hung_up', more) end
  return move(c, 'finished', more)
end

-- How a holder gets calls, which it must answer within `offer` ms (0: whenever), or has answered already. `grace` is what
-- is left of the lease if the holder does not say soon that a call reached it (nil: it asked for it and knows).
local function terms_of(owner, lease, offer, at_once, grace)
  local answer_by = (offer > 0 and at_once ~= '1') and now + offer or 0
  local until_ms = now + (grace and min(lease, grace) or lease)
  if answer_by > 0 then until_ms = min(until_ms, answer_by) end
  return { at_once = at_once == '1', answer_by = answer_by, more = { owner = owner, score = text(until_ms) } }
end

-- Gives a call to a holder.
local function take(c, terms, token)
  put(c, ATTEMPT, (c.f[ATTEMPT] or 0) + 1)
  put(c, TOKEN, token)
  if terms.answer_by ~= get(c, ANSWER_BY) then put(c, ANSWER_BY, terms.answer_by) end
  step(c, 'claimed', terms.more)
  if terms.at_once then step(c, 'answered', terms.more) end
  save(c)
end

-- The next fencing tokens of the flow, `many` of them; returns the first.
local function tokens(many) return call('HINCRBY', K .. 'conf', 'token', many) - many + 1 end
