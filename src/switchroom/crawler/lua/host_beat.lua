-- This process is at the host; how many others are, and for how long the host is to be left alone (ms).
local users, tokens, next_start = unpack(KEYS)
local runner, lease = ARGV[1], tonumber(ARGV[2])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZADD', users, now + lease, runner)
redis.call('ZREMRANGEBYSCORE', users, '-inf', now)
-- Requests that began before the others were known count too.
for i = 3, #ARGV do redis.call('ZADD', tokens, now, ARGV[i]) end
redis.call('PEXPIRE', users, 60000)
redis.call('PEXPIRE', tokens, 600000)
local from = tonumber(redis.call('GET', next_start) or 0)
return {redis.call('ZCARD', users) - 1, math.max(0, from - now)}
