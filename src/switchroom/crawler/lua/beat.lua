local runner, lease = ARGV[1], tonumber(ARGV[2])
local now = now_ms()
redis.call('ZADD', runners, now + lease, runner)
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', runners, '-inf', now)) do drop_runner(dead) end
-- Time in which nobody was at work does not count.
local before = tonumber(redis.call('HGET', stats, 'beat') or 0)
if now - before < lease then redis.call('HINCRBY', stats, 'active_ms', now - before) end
redis.call('HSET', stats, 'beat', now)
local out = {redis.call('ZCARD', runners), redis.call('GET', job)}
for _, pattern in ipairs(redis.call('SMEMBERS', closed)) do out[#out + 1] = pattern end
return out
