-- The host wants to be left alone for so long (ms).
local wait = tonumber(ARGV[1])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local from = math.max(now + wait, tonumber(redis.call('GET', KEYS[1]) or 0))
redis.call('SET', KEYS[1], from, 'PX', math.ceil(from - now) + 60000)
return 1
