-- ARGV: task, caller ID, payload, priority, not before ms, expires ms, max attempts, duplicates mode, cap,
--       idempotency key, digest, seconds to keep the key, '1' if it has a callback URL,
--       revision of the flow that these rules were read from ('' for unchecked)
-- Returns: {'ok' | 'joined' | 'again', task, state, pending count, place, estimate ms}, {'duplicate', task}, {'mismatch'},
--          {'full'}, {'stale'}
local id, caller = ARGV[1], ARGV[2]
if ARGV[14] ~= '' and redis.call('HGET', K .. 'doc', 'rev') ~= ARGV[14] then return { 'stale' } end

local function place_of(task)
  local rank = redis.call('ZRANK', K .. 'pending', task)
  if not rank then return 0, 0 end
  return rank + 1, estimate(rank + 1)
end

local key = K .. 'idem:' .. ARGV[10]
if ARGV[10] ~= '' then
  local known = redis.call('GET', key)
  if known then
    local answer = cjson.decode(known)
    if answer.digest ~= ARGV[11] then return { 'mismatch' } end
    return { answer.joined and 'joined' or 'again', answer.task, answer.state, answer.pending, answer.place, answer.estimate }
  end
end

local function answer(word, task, state, pending, place, wait)
  if ARGV[10] ~= '' then
    redis.call('SET', key, cjson.encode({ digest = ARGV[11], task = task, state = state, pending = pending, place = place,
      estimate = wait, joined = word == 'joined' }), 'EX', ARGV[12])
  end
  return { word, task, state, pending, place, wait }
end

if ARGV[8] ~= 'allow' then
  local known = redis.call('HGET', K .. 'ids', caller)
  local state = known and redis.call('HGET', call_key(known), 's')
  if state and state ~= 'ended' then
    if ARGV[8] == 'reject' then return { 'duplicate', known } end
    if state == 'pending' or state == 'scheduled' then redis.call('HSET', call_key(known), 'p', ARGV[3], 'u', ARGV[13]) end
    local place, wait = place_of(known)
    return answer('joined', known, state, redis.call('ZCARD', K .. 'pending'), place, wait)
  end
end

local cap = tonumber(ARGV[9])
if cap > 0 and redis.call('ZCARD', K .. 'pending') + redis.call('ZCARD', K .. 'scheduled') >= cap then
  return { 'full' }
end

local due = tonumber(ARGV[5])
local event = due > now and 'scheduled' or 'enqueued'
local state = T[':' .. event]
local sequence = redis.call('HINCRBY', K .. 'conf', 'seq', 1)
redis.call('HSET', call_key(id), 's', state, 'id', caller, 'p', ARGV[3], 'pr', ARGV[4], 'q', sequence, 'e', text(now),
  'nb', ARGV[5], 'x', ARGV[6], 'm', ARGV[7], 'n', 0, 'h', history(nil, state, event, 0, '', '', ''))
redis.call('HSET', K .. 'ids', caller, id)
if tonumber(ARGV[6]) > 0 then redis.call('ZADD', K .. 'expiry', ARGV[6], id) end
if state == 'pending' then
  redis.call('ZADD', K .. 'pending', order(tonumber(ARGV[4]), sequence), id)
  wake()
else
  redis.call('ZADD', K .. 'scheduled', ARGV[5], id)
end
if ARGV[13] ~= '' then redis.call('HSET', call_key(id), 'u', ARGV[13]) end
emit(id, caller, state, '', 0, '', event, '', '', ARGV[13])
local place, wait = place_of(id)
return answer('ok', id, state, redis.call('ZCARD', K .. 'pending'), place, wait)
