-- The verbs of the API. ARGV: verb, task, then by verb: toggle: '1' | '0' | '' (flip)
--   complete: outcome, result, wrap-up ms | cancel: detail, wrap-up ms | remove | clear: at most this many
-- Returns {'ok', state, reason}, {'conflict', state}, {'unknown'}, {'many', live calls}; toggle {'ok', 0 | 1}; clear {'ok', n, left}
tick()
local verb, id = ARGV[1], ARGV[2]

if verb == 'toggle' then
  local value = ARGV[3]
  if value == '' then value = conf('enabled', 1) == 1 and '0' or '1' end
  redis.call('HSET', K .. 'conf', 'enabled', value)
  if value == '1' then wake() end
  return { 'ok', tonumber(value) }
end

if verb == 'clear' then
  local ids = redis.call('ZRANGE', K .. 'pending', 0, tonumber(ARGV[3]) - 1)
  for _, task in ipairs(ids) do move(task, 'removed', { reason = 'removed', cause = 'cleared' }) end
  return { 'ok', #ids, redis.call('ZCARD', K .. 'pending') }
end

if verb == 'complete' and id == '' then
  local live = {}
  for _, task in ipairs(redis.call('ZRANGE', K .. 'held', 0, -1)) do
    if redis.call('HGET', call_key(task), 's') == 'live' then live[#live + 1] = task end
  end
  if #live ~= 1 then return { 'many', #live } end
  id = live[1]
end

local v = redis.call('HMGET', call_key(id), 's', 'r')
local state = v[1]
if not state then return { 'unknown' } end
if state == 'ended' or (state == 'wrapup' and verb ~= 'remove') then return { 'ok', id, state, v[2] or '' } end

local after
if verb == 'complete' then
  local set = {}
  if ARGV[3] ~= '' then set = { 'oc', ARGV[3] } end
  if ARGV[4] ~= '' then set[#set + 1] = 'rs'; set[#set + 1] = ARGV[4] end
  after = move(id, 'hung_up', { reason = 'completed', cause = 'completed', score = text(now + tonumber(ARGV[5])), set = set })
elseif verb == 'cancel' then
  local more = { reason = 'cancelled', cause = 'cancelled', detail = ARGV[3], score = text(now + tonumber(ARGV[4])) }
  after = move(id, 'cancelled', more) or move(id, 'hung_up', more)
elseif verb == 'remove' then
  after = move(id, 'removed', { reason = 'removed' })
end
if not after then return { 'conflict', state } end
return { 'ok', id, after, redis.call('HGET', call_key(id), 'r') or '' }
