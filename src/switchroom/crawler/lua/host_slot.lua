-- The next start at a host whose requests keep a distance: how long to wait for it (ms).
local delay = tonumber(ARGV[1])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local start = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0))
redis.call('SET', KEYS[1], start + delay, 'PX', math.ceil(start - now + delay) + 60000)
return start - now
