-- Makes a delivery due now. ARGV: ID. Returns 'ok', or 'unknown'
local key = K .. 'd:' .. ARGV[1]
local v = redis.call('HMGET', key, 's', 'ep', 'tg', 'o')
if not v[1] then return 'unknown' end
local due = K .. 'due:' .. v[3]
if v[1] == 'waiting' then
  -- under way already, or behind an earlier message of its call: its turn comes
  if (v[4] and v[4] ~= '') or not redis.call('ZSCORE', due, ARGV[1]) then return 'ok' end
else
  redis.call('PERSIST', key)
  redis.call('HSET', key, 's', 'waiting', 'n', 0, 'en', 0)
  redis.call('HINCRBY', K .. 'open', v[2], 1)
  redis.call('ZREM', K .. 'done:' .. v[2], ARGV[1])
  redis.call('ZREM', K .. 'failed:' .. v[2], ARGV[1])
  redis.call('ZADD', K .. 'log:' .. v[2], 'NX', redis.call('HGET', key, 'c'), ARGV[1])
end
redis.call('HSET', key, 'x', text(now))
redis.call('ZADD', due, text(now), ARGV[1])
refresh(v[3])
return 'ok'
