-- One call's record: loaded once, moved by events of the table, saved once.

-- Which index holds the calls of a state; pending ones stand in the line.
local INDEX = { scheduled = 'scheduled', offered = 'held', live = 'held', wrapup = 'wrapup', ended = 'ended' }

local FIELDS = { 's', 'id', 'n', 'o', 'h', 'pr', 'q', 'e', 'li', 'l', 'k', 'x', 'ws', 'u', 't', 'r', 'm', 'f', 'od', 'pt' }
local TO_FINISH = { 's', 'id', 'n', 'o', 'h', 'li', 't', 'r', 'u' } -- what the end of an answered call needs

local function record(id, f)
  if not f.s then return nil end
  return { id = id, from = f.s, s = f.s, caller = f.id, attempt = f.n, owner = f.o or '', past = f.h or '',
    priority = tonumber(f.pr or 0), sequence = tonumber(f.q or 0), since = tonumber(f.ws or f.e or 0),
    live = tonumber(f.li or 0), lane = f.l or '', need = f.k or '', expires = tonumber(f.x or 0), hook = f.u,
    token = f.t or '', reason = f.r or '', most = tonumber(f.m or 0), failures = tonumber(f.f or 0),
    answer_by = tonumber(f.od or 0), told = f.pt, put = {} }
end

local function load(id, fields)
  fields = fields or FIELDS
  local found = {}
  for i, value in ipairs(call('HMGET', call_key(id), unpack(fields))) do found[fields[i]] = value end
  return record(id, found)
end

-- With everything else that is stored, for an answer that says it all.
local function load_whole(id)
  local found, flat = {}, call('HGETALL', call_key(id))
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  local r = record(id, found)
  if r then r.flat = flat end
  return r
end

local function put(r, field, value)
  r.put[#r.put + 1] = field
  r.put[#r.put + 1] = value
end

-- A call that is not in the queue yet. `fields` are those that never change.
local function create(id, caller, priority, sequence, need, expires, most, hook, since, fields)
  local r = { id = id, from = '', s = '', caller = caller, attempt = '0', owner = '', past = '', priority = priority,
    sequence = sequence, since = since, live = 0, lane = '', need = need, expires = expires, hook = hook, token = '',
    reason = '', most = most, failures = 0, answer_by = 0, put = fields }
  put(r, 'id', caller)
  put(r, 'q', text(sequence))
  put(r, 'e', now_text)
  put(r, 'm', text(most))
  if priority ~= 0 then put(r, 'pr', text(priority)) end
  if expires ~= 0 then put(r, 'x', text(expires)) end
  if need ~= '' then put(r, 'k', need) end
  if hook ~= '' then put(r, 'u', hook) end
  if since ~= now then put(r, 'ws', text(since)) end
  call('HSET', K .. 'ids', caller, id)
  return r
end

-- `hook` is '1' for a call that has a callback URL. The outbox holds only what a webhook may want, and is emptied by
-- whoever turned an entry into messages: unlike the event stream it never forgets by length.
local function emit(r, previous, owner, cause, reason, detail)
  local fields = { 't', r.id, 'c', r.caller, 's', r.s, 'n', r.attempt, 'e', cause }
  local function unless_empty(name, value)
    if value ~= '' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  unless_empty('p', previous)
  unless_empty('o', owner)
  unless_empty('r', reason)
  unless_empty('d', detail)
  local entry = call('XADD', K .. 'events', 'MAXLEN', '~', 100000, '*', unpack(fields))
  if r.hook == '1' or conf('hooks', 0) > 0 then call('XADD', K .. 'outbox', entry, unpack(fields)) end
end

-- One line of a call's history, an array that ends with its last value: time, state, cause, attempt, owner, reason, detail.
local function line_of_history(state, cause, attempt, owner, reason, detail)
  local head = '[' .. now_text .. ',"' .. state .. '",'
  if detail ~= '' or reason ~= '' then
    return head .. cjson.encode(cause) .. ',' .. attempt .. ',' .. cjson.encode(owner) .. ',"' .. reason .. '",'
      .. cjson.encode(detail) .. ']'
  end
  if owner ~= '' then return head .. cjson.encode(cause) .. ',' .. attempt .. ',' .. cjson.encode(owner) .. ']' end
  if tonumber(attempt) > 0 then return head .. cjson.encode(cause) .. ',' .. attempt .. ']' end
  return head .. cjson.encode(cause) .. ']'
end

local function answered(r)
  if r.live > 0 then return end -- a second attempt is no second answer
  local wait = max(0, now - r.since)
  count('answered', 1)
  count('wait_ms', wait)
  longest = max(longest, wait)
  if wait <= conf('sl_ms', 20000) then count('in_sl', 1) end
end

local function over(r, reason)
  count('ended', 1)
  if reason == 'failed' or reason == 'timeout' or reason == 'no_answer' then count('failed', 1) end
  if (reason == 'abandoned' or reason == 'expired') and r.live == 0 then
    local wait = max(0, now - r.since)
    count('abandoned', 1)
    longest = max(longest, wait)
    if reason == 'abandoned' and wait < conf('short_ms', 5000) then count('short_abandoned', 1) end
  end
end

local function handled(r)
  local took = max(0, now - r.live)
  count('handle_ms', took)
  count('handled', 1)
  -- moving average of the handling time, for the estimated wait: a tenth of each new call
  aht = aht or conf('aht_ms', took)
  aht = aht + (took - aht) / 10
end

-- Moves a loaded call by an event. `more` holds: owner, cause, reason, detail, score (in the new state's index).
-- Returns the new state, or nil where the table does not allow it.
local function step(r, event, more)
  local before, after = r.s, T[r.s .. ':' .. event]
  if not after then return nil end
  local owner, cause = more.owner or r.owner, more.cause or event
  local reason, detail = more.reason or '', more.detail or ''
  r.s = after
  r.score = more.score or r.score
  local line = line_of_history(after, cause, r.attempt, owner, reason, detail)
  r.past = r.past == '' and line or r.past .. ',' .. line
  emit(r, before, owner, cause, reason, detail)
  if reason ~= '' then r.reason = reason; put(r, 'r', reason) end
  if detail ~= '' then put(r, 'd', detail) end
  if after == 'offered' then
    put(r, 'of', now_text)
  elseif after == 'live' then
    answered(r)
    r.live = now
    put(r, 'li', now_text)
  elseif after == 'wrapup' then
    put(r, 'w', now_text)
  elseif after == 'ended' then
    put(r, 'en', now_text)
    over(r, reason)
  end
  if before == 'live' and r.live > 0 then
    if after == 'wrapup' or after == 'ended' then handled(r) end
    local rest = conf('wrap_ms', 0)
    if rest > 0 and after == 'wrapup' then
      call('ZADD', K .. 'rest', text(now + rest), r.id)
      call('ZADD', K .. 'available', text(now + rest), owner)
    end
  end
  if after == 'pending' or after == 'scheduled' then owner = '' end
  if owner ~= r.owner then r.owner = owner; put(r, 'o', owner) end
  return after
end

local function relaxes(r)
  return r.need ~= '' and r.need:sub(1, 1) ~= '@' and word('relax') and word('relax') ~= ''
end

-- Writes the record and its place in the indexes.
local function save(r)
  local from, to, id = r.from, r.s, r.id
  if from == 'pending' then
    leave(id, r.lane)
    call('ZREM', K .. 'joined', id)
    if to ~= 'pending' and r.need ~= '' then call('ZREM', K .. 'relax', id) end
  elseif from ~= '' and INDEX[from] ~= INDEX[to] then
    call('ZREM', K .. INDEX[from], id)
  end
  if to == 'pending' then
    local lane = stand(id, r.need, order(r.priority, r.sequence))
    if lane ~= r.lane then r.lane = lane; put(r, 'l', lane) end
    if relaxes(r) then call('ZADD', K .. 'relax', now_text, id) end
    stir()
  elseif to == 'ended' then
    call('ZADD', K .. (r.dead and 'dead' or 'ended'), now_text, id)
    if call('HGET', K .. 'ids', r.caller) == id then call('HDEL', K .. 'ids', r.caller) end
  elseif r.score then
    call('ZADD', K .. INDEX[to], r.score, id)
  end
  if r.expires > 0 and r.live == 0 then
    if to == 'pending' or to == 'scheduled' then
      call('ZADD', K .. 'expiry', text(r.expires), id)
    else
      call('ZREM', K .. 'expiry', id)
    end
  end
  if INDEX[from] == 'held' and INDEX[to] ~= 'held' then stir() end
  put(r, 's', to)
  put(r, 'h', r.past)
  put(r, 'n', r.attempt)
  call('HSET', call_key(id), unpack(r.put))
  r.from, r.saved, r.put = to, r.put, {}
end

local function move(r, event, more)
  local after = step(r, event, more)
  if after then save(r) end
  return after
end

-- Is this hold still the call's? Every write of a holder passes here: an older token is refused.
local function holds(r, owner, token)
  return r and r.owner == owner and r.token == token and (r.s == 'offered' or r.s == 'live' or r.s == 'wrapup')
end

-- After an unanswered offer or a refusal the same holder is not offered the same call for a while, each
-- time twice as long, at most five minutes.
local MOST_BACKOFF_MS = 300000
local function back_off(r)
  local first = conf('backoff_ms', 5000)
  if first <= 0 or r.owner == '' then return end
  local times = call('HINCRBY', call_key(r.id), 'b:' .. r.owner, 1)
  local pause = min(MOST_BACKOFF_MS, first * 2 ^ min(times - 1, 16))
  call('ZADD', K .. 'backoff', text(now + pause), r.owner .. SEPARATOR .. r.id)
end

-- An attempt that came to nothing (its holder died, or nobody answered): back to its place, after the flow's delay; the
-- last one ends the call, and puts it among the dead letters.
local function fail_attempt(r, cause, reason, detail)
  r.failures = r.failures + 1
  put(r, 'f', r.failures)
  if r.failures >= r.most then
    r.dead = true
    move(r, 'exhausted', { reason = reason, cause = cause, detail = detail })
    return
  end
  local delay = conf('retry_ms', 0)
  if delay > 0 then
    move(r, 'postponed', { cause = cause, detail = detail, score = text(now + delay) })
  else
    move(r, cause, { detail = detail })
  end
end

-- The holder closes a call. A verb that ended it before (complete, cancel) has set the reason, and it stays.
local function finish(r, reason, detail, outcome, result)
  if outcome ~= '' then put(r, 'oc', outcome) end
  if result ~= '' then put(r, 'rs', result) end
  if r.reason ~= '' and r.s == 'wrapup' then reason = r.reason end
  if r.s == 'live' then step(r, 'hung_up', { reason = reason, detail = detail, score = now_text }) end
  return move(r, 'finished', { reason = reason, detail = detail })
end

-- Gives a call to a holder, which must answer within `offer` ms (0: whenever), or has answered already.
local function take(r, owner, lease, offer, at_once)
  local token = call('HINCRBY', K .. 'conf', 'token', 1)
  local answer_by = (offer > 0 and not at_once) and now + offer or 0
  local score = text(answer_by > 0 and min(now + lease, answer_by) or now + lease)
  r.attempt = text(r.attempt + 1)
  r.token = text(token)
  put(r, 't', r.token)
  if answer_by ~= r.answer_by then put(r, 'od', text(answer_by)) end
  step(r, 'claimed', { owner = owner, score = score })
  if at_once then step(r, 'answered', { score = score }) end
  save(r)
  if not r.flat then return { r.id, token, call('HGETALL', call_key(r.id)) } end
  for _, word in ipairs(r.saved) do r.flat[#r.flat + 1] = word end -- of a field that stands twice the last counts
  return { r.id, token, r.flat }
end
