-- Calls move by events of the transition table, and with them their places in the indexes and the figures.

-- Which index holds the calls of a state; pending ones stand in the line.
local INDEX = { scheduled = 'scheduled', offered = 'held', live = 'held', wrapup = 'wrapup', ended = 'ended' }

-- Moves loaded calls by an event. `more` holds: owner, cause, reason, detail, score (in the new state's index). Returns the
-- new state, or nil where the table does not allow it.
local function step(c, event, more)
  local f = c.f
  local before = f[STATE]
  local after = T[before][event]
  if not after then return nil end
  local owner_before, live = f[OWNER] or '', f[LIVE] or 0
  local owner, reason, detail = more.owner or owner_before, more.reason or '', more.detail or ''
  tell_change(c, after, more.cause or event, before, owner, reason, detail)
  f[STATE] = after
  c.score = more.score or c.score
  if reason ~= '' then put(c, REASON, reason) end
  if detail ~= '' then put(c, DETAIL, detail) end
  if after == 'offered' then
    put(c, OFFERED, now)
  elseif after == 'live' then
    if live == 0 then answered(c.sinces) end -- a second attempt is no second answer
    put(c, LIVE, now)
  elseif after == 'wrapup' then
    put(c, WRAPUP, now)
  elseif after == 'ended' then
    put(c, ENDED, now)
    over(reason, live, c.sinces)
  end
  if before == 'live' and live > 0 then
    if after == 'wrapup' or after == 'ended' then handled(live, c.n) end
    local rest = conf('wrap_ms', 0)
    if rest > 0 and after == 'wrapup' then
      put_in('rest', c.ids, text(now + rest))
      put_in('available', { owner }, text(now + rest))
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

local function waits(state) return state == 'pending' or state == 'scheduled' end

-- Has the records of ended calls kept from now for as long as the flow says: those that ended together are one entry.
local TOGETHER = 64
local function forget_later(ids)
  for first = 1, #ids, TOGETHER do
    put_in('ended', { table.concat(ids, SEPARATOR, first, min(first + TOGETHER - 1, #ids)) }, now_text)
  end
end

-- Notes the records to be written, and changes their places in the indexes. Back into the line goes one call at a time.
local function save(c)
  local f, from, ids = c.f, c.from, c.ids
  local to = f[STATE]
  local index_before, index = INDEX[from], INDEX[to]
  if from == 'pending' then
    leave(ids, f[LANE] or '')
    if to ~= 'pending' then
      if (f[NEED] or '') ~= '' then take_out('relax', ids) end
      if (f[JOINED] or 0) > 0 then take_out('joined', ids) end
    end
  elseif from ~= '' and index_before ~= index then
    take_out(index_before, ids)
  end
  if to == 'pending' then
    local score = order(get(c, PRIORITY), own(c).sequence)
    local lane = stand(ids[1], get(c, NEED), score)
    if from == to and (f[JOINED] or 0) > 0 then put_in('joined', ids, score) end -- its caller is on the line, still
    if lane ~= get(c, LANE) then put(c, LANE, lane) end
    if relaxes(c) then put_in('relax', ids, now_text) end
    stirred = true
  elseif to == 'ended' then
    if c.dead then put_in('dead', ids, now_text) else forget_later(ids) end
    over_with[#over_with + 1] = c
  elseif c.score then
    put_in(index, ids, c.score)
  end
  if c.expiries then
    if waits(to) then
      put_in('expiry', ids, text(c.expiries[1]))
    elseif waits(from) then
      take_out('expiry', ids)
    end
  end
  if index_before == 'held' and index ~= 'held' then stirred = true end
  c.from = to
  write(c)
end

local function move(c, event, more)
  local after = step(c, event, more)
  if after then save(c) end
  return after
end

-- The place of a pending call as it is told, its estimate in ms, and whether it was overtaken. `alone`: nobody else waits.
local function tell_place(c, alone)
  local rank, mine = get(c, PRIORITY), own(c)
  local place, overtaken, told = 1, 0, '1:0:1'
  if not alone then place, overtaken, told = tell(ahead(order(rank, mine.sequence)) + 1, rank, mine.told) end
  if told ~= '' then
    put_own(c, 'told', told)
    write(c)
  end
  return place, estimate(place), overtaken
end

-- Is this hold still theirs? Every write of a holder passes here: an older token (a number) is refused.
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
  local until_ms = now + min(MOST_BACKOFF_MS, first * 2 ^ min(times - 1, 16))
  put_in('backoff', { owner .. SEPARATOR .. c.ids[1] }, text(until_ms))
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

-- The holder closes calls. A verb that ended them before (complete, cancel) has set the reason, and it stays.
local function finish(c, reason, detail, outcome, result)
  local f = c.f
  if outcome ~= '' then put(c, OUTCOME, outcome) end
  if result ~= '' then put(c, RESULT, result) end
  if f[STATE] == 'wrapup' and (f[REASON] or '') ~= '' then reason = f[REASON] end
  local more = { reason = reason, detail = detail, score = now_text }
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

-- Gives calls to a holder.
local function take(c, terms, token)
  put(c, ATTEMPT, (c.f[ATTEMPT] or 0) + 1)
  put(c, TOKEN, token)
  if terms.answer_by ~= get(c, ANSWER_BY) then put(c, ANSWER_BY, terms.answer_by) end
  step(c, 'claimed', terms.more)
  if terms.at_once then step(c, 'answered', terms.more) end
  save(c)
end

-- The next fencing token of the flow: greater than all before.
local function next_token() return call('HINCRBY', K .. 'conf', 'token', 1) end
