-- Shared by every script of the queue. KEYS[1] is the flow's key prefix with its hash tag; `T` stands above this line.
local K = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function text(number) return string.format('%.0f', number) end

local function call_key(id) return K .. 'c:' .. id end

-- Which index holds the calls of a state.
local INDEX = { scheduled = 'scheduled', pending = 'pending', offered = 'held', live = 'held', wrapup = 'wrapup' }

-- Higher priority first, then the order of arrival; both fit the 53 bits of a score.
local function order(priority, sequence) return text(-priority * 1e12 + sequence) end

local function conf(name, default)
  local value = redis.call('HGET', K .. 'conf', name)
  if value then return tonumber(value) end
  return default
end

local function count(field, by)
  redis.call('HINCRBY', K .. 'stats', field, by)
  redis.call('HINCRBY', K .. 'stats:' .. text(math.floor(now / 86400000)), field, by)
end

-- `hook` is '1' for a call that has a callback URL. The outbox holds only what a webhook may want, and is emptied by
-- whoever turned an entry into messages: unlike the event stream it never forgets by length.
local function emit(id, caller, state, previous, attempt, owner, cause, reason, detail, hook)
  local fields = { 't', id, 'c', caller, 'a', text(now), 's', state, 'p', previous, 'n', attempt, 'o', owner, 'e', cause,
    'r', reason, 'd', detail }
  local entry = redis.call('XADD', K .. 'events', 'MAXLEN', '~', 100000, '*', unpack(fields))
  if hook == '1' or conf('hooks', 0) > 0 then redis.call('XADD', K .. 'outbox', entry, unpack(fields)) end
end

local function history(past, state, cause, attempt, owner, reason, detail)
  local entry = cjson.encode({ a = now, s = state, e = cause, n = tonumber(attempt), o = owner, r = reason, d = detail })
  if past and past ~= '' then return past .. ',' .. entry end
  return entry
end

local function wake() redis.call('ZADD', K .. 'wake', 0, '1') end

-- Moves a call by an event of the table. `more` holds: score (in the new state's index), owner, cause, reason, detail,
-- set (a flat list of further fields). Returns the new state, or nil where the table does not allow it.
local function move(id, event, more)
  local key = call_key(id)
  local v = redis.call('HMGET', key, 's', 'id', 'n', 'o', 'h', 'pr', 'q', 'e', 'li', 'u')
  if not v[1] then return nil end
  local before = v[1]
  local after = T[before .. ':' .. event]
  if not after then return nil end
  local owner = more.owner or v[4] or ''
  local attempt = more.attempt or v[3]
  local reason = more.reason or ''
  local detail = more.detail or ''
  local cause = more.cause or event
  local past = history(v[5], after, cause, attempt, owner, reason, detail)
  local fields = { 's', after, 'h', past, 'n', attempt }
  if INDEX[before] ~= INDEX[after] then redis.call('ZREM', K .. INDEX[before], id) end
  if before == 'pending' then redis.call('ZREM', K .. 'joined', id) end
  if after == 'pending' then
    redis.call('ZADD', K .. 'pending', order(tonumber(v[6]), tonumber(v[7])), id)
    fields[#fields + 1] = 'o'; fields[#fields + 1] = ''
    wake()
  elseif INDEX[after] then
    redis.call('ZADD', K .. INDEX[after], more.score, id)
  end
  if after == 'offered' then
    redis.call('ZREM', K .. 'expiry', id)
    fields[#fields + 1] = 'of'; fields[#fields + 1] = text(now)
  elseif after == 'live' then
    fields[#fields + 1] = 'li'; fields[#fields + 1] = text(now)
    local wait = now - tonumber(v[8])
    count('answered', 1)
    count('wait_ms', wait)
    local longest = redis.call('HGET', K .. 'stats', 'longest_ms')
    if not longest or wait > tonumber(longest) then redis.call('HSET', K .. 'stats', 'longest_ms', text(wait)) end
    if wait <= conf('sl_ms', 20000) then count('in_sl', 1) end
  elseif after == 'wrapup' then
    fields[#fields + 1] = 'w'; fields[#fields + 1] = text(now)
  elseif after == 'ended' then
    fields[#fields + 1] = 'en'; fields[#fields + 1] = text(now)
    redis.call('ZREM', K .. 'expiry', id)
    redis.call('ZADD', K .. 'ended', text(now), id)
    if redis.call('HGET', K .. 'ids', v[2]) == id then redis.call('HDEL', K .. 'ids', v[2]) end
    if reason == 'abandoned' or reason == 'expired' then count('abandoned', 1) end
    if reason == 'failed' or reason == 'timeout' then count('failed', 1) end
  end
  if (before == 'live') and (after == 'wrapup' or after == 'ended') and v[9] then
    local handled = now - tonumber(v[9])
    count('handle_ms', handled)
    count('handled', 1)
    -- moving average of the handling time, for the estimated wait: a tenth of each new call
    local old = conf('aht_ms', handled)
    redis.call('HSET', K .. 'conf', 'aht_ms', text(old + (handled - old) / 10))
  end
  if INDEX[before] == 'held' and INDEX[after] ~= 'held' and redis.call('ZCARD', K .. 'pending') > 0 then wake() end
  if reason ~= '' then fields[#fields + 1] = 'r'; fields[#fields + 1] = reason end
  if detail ~= '' then fields[#fields + 1] = 'd'; fields[#fields + 1] = detail end
  for _, word in ipairs(more.set or {}) do fields[#fields + 1] = word end
  redis.call('HSET', key, unpack(fields))
  emit(id, v[2], after, before, attempt, owner, cause, reason, detail, v[10])
  return after
end

-- Time passes: callbacks fall due, leases and wrap-ups run out, waiting calls expire. Bounded, so that a claim stays
-- short; whatever is left is taken by the next call.
local function tick()
  local limit = text(now)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', K .. 'expiry', '-inf', limit, 'LIMIT', 0, 100)) do
    if not move(id, 'expired', { reason = 'expired', detail = 'not started before its expiresAt' }) then
      redis.call('ZREM', K .. 'expiry', id)
    end
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', K .. 'scheduled', '-inf', limit, 'LIMIT', 0, 100)) do
    move(id, 'due', {})
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', K .. 'held', '-inf', limit, 'LIMIT', 0, 100)) do
    local v = redis.call('HMGET', call_key(id), 'f', 'm', 'o')
    local failures = tonumber(v[1] or 0) + 1
    local set = { 'f', failures }
    local lost = 'its holder ' .. (v[3] or '') .. ' gave no sign of life'
    if failures >= tonumber(v[2]) then
      move(id, 'exhausted', { reason = 'failed', cause = 'lease_expired', detail = lost, set = set })
    else
      move(id, 'lease_expired', { detail = lost, set = set })
    end
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', K .. 'wrapup', '-inf', limit, 'LIMIT', 0, 100)) do
    local reason = redis.call('HGET', call_key(id), 'r') or 'failed'
    move(id, 'wrapup_over', { reason = reason, detail = 'its record was not closed in time' })
  end
end

-- Is this hold still the call's? Every write of a holder passes here: an older token is refused.
local function holds(v, owner, token)
  return v.o == owner and v.t == token and (v.s == 'offered' or v.s == 'live' or v.s == 'wrapup')
end

local function hold_of(id)
  local v = redis.call('HMGET', call_key(id), 's', 'o', 't', 'r')
  return { s = v[1] or '', o = v[2] or '', t = v[3] or '', r = v[4] or '' }
end

-- Milliseconds until a line is free for the call at this place (1 is next).
local function estimate(place)
  local lines = conf('lines', 4)
  local free = lines - redis.call('ZCARD', K .. 'held')
  if place <= free then return 0 end
  return math.ceil((place - math.max(free, 0)) * conf('aht_ms', 120000) / lines)
end
