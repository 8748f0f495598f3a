-- ARGV: owner, lease ms, at most this many, one task ('' for the next in line), whether they are answered at once
-- Returns a list of {task, token, fields of the call}; for one task that must wait: {'wait', place}; that is not
-- waiting: {'state', its state, its reason}
tick()
local owner, lease = ARGV[1], tonumber(ARGV[2])
local free = conf('lines', 4) - redis.call('ZCARD', K .. 'held')
local open = conf('enabled', 1) == 1

local function take(id)
  local token = redis.call('HINCRBY', K .. 'conf', 'token', 1)
  local attempt = redis.call('HINCRBY', call_key(id), 'n', 1)
  move(id, 'claimed', { owner = owner, attempt = attempt, score = text(now + lease), set = { 'o', owner, 't', token } })
  if ARGV[5] == '1' then move(id, 'answered', { score = text(now + lease) }) end
  return { id, token, redis.call('HGETALL', call_key(id)) }
end

if ARGV[4] ~= '' then
  local id = ARGV[4]
  local v = redis.call('HMGET', call_key(id), 's', 'r')
  if v[1] ~= 'pending' then return { 'state', v[1] or '', v[2] or '' } end
  -- Its caller is on the line. Callers that waited before it go first; one whose process stopped asking is forgotten.
  redis.call('ZADD', K .. 'joined', redis.call('ZSCORE', K .. 'pending', id), id)
  redis.call('HSET', call_key(id), 'j', text(now))
  local ahead = 0
  for _, other in ipairs(redis.call('ZRANGE', K .. 'joined', 0, -1)) do
    if other == id then break end
    local seen = redis.call('HGET', call_key(other), 'j')
    if seen and tonumber(seen) > now - 15000 then ahead = ahead + 1 else redis.call('ZREM', K .. 'joined', other) end
  end
  if not open or ahead >= free then return { 'wait', ahead + 1 } end
  return { take(id) }
end

local held = {}
if not open or free < 1 then return held end
for _, id in ipairs(redis.call('ZRANGE', K .. 'pending', 0, math.min(free, tonumber(ARGV[3])) - 1)) do
  held[#held + 1] = take(id)
end
if redis.call('ZCARD', K .. 'pending') > 0 and free > #held then wake() end
return held
