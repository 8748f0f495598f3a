-- What became of a try. ARGV: ID, token, outcome ('delivered', 'failed', 'cancelled', or 'waiting' for a retry),
-- ms until the retry, the attempt (JSON)
-- Returns 'ok', or 'late' for a failure reported by a sender that had lost the delivery. What was delivered was
-- delivered, whoever says it.
local id, outcome = ARGV[1], ARGV[3]
local key = K .. 'd:' .. id
local v = redis.call('HMGET', key, 's', 'k', 'ep', 'tg', 't')
if v[1] ~= 'waiting' or (v[2] ~= ARGV[2] and outcome ~= 'delivered') then return 'late' end
local endpoint, target = v[3], v[4]
local due, lane = K .. 'due:' .. target, K .. 'lane:' .. target .. ':' .. v[5]
append(key, ARGV[5])
redis.call('HINCRBY', key, 'n', 1)
redis.call('ZREM', K .. 'run:' .. target, id)
if redis.call('LINDEX', lane, 0) == id then
  redis.call('LPOP', lane)
  local follower = redis.call('LINDEX', lane, 0)
  if follower then redis.call('ZADD', due, text(now), follower) end
end
if outcome == 'waiting' then
  local at = text(now + tonumber(ARGV[4]))
  redis.call('HSET', key, 'o', '', 'x', at)
  redis.call('ZADD', due, at, id)
else
  redis.call('HSET', key, 'o', '', 's', outcome, 'x', 0, 'en', text(now))
  redis.call('ZREM', due, id)
  redis.call('HINCRBY', K .. 'open', endpoint, -1)
  -- retention: by number and by age, and all of it where an endpoint falls silent
  local log, done, most = K .. 'log:' .. endpoint, K .. 'done:' .. endpoint, MOST_DONE
  if outcome ~= 'delivered' then done, most = K .. 'failed:' .. endpoint, MOST_FAILED end
  redis.call('ZADD', done, text(now), id)
  local over, old = redis.call('ZCARD', done) - most, nil
  if over > 0 then
    old = redis.call('ZRANGE', done, 0, math.min(over, 100) - 1)
  else
    old = redis.call('ZRANGEBYSCORE', done, '-inf', text(now - KEEP_MS), 'LIMIT', 0, 100)
  end
  for _, gone in ipairs(old) do
    redis.call('DEL', K .. 'd:' .. gone)
    redis.call('ZREM', done, gone)
    redis.call('ZREM', log, gone)
  end
  redis.call('PEXPIRE', key, KEEP_MS)
  redis.call('PEXPIRE', log, 2 * KEEP_MS)
  redis.call('PEXPIRE', done, 2 * KEEP_MS)
end
refresh(target)
return 'ok'
