-- A token for one request, 1 where there was one; those of processes that are gone are taken back.
local users, tokens = unpack(KEYS)
local name, most = ARGV[1], tonumber(ARGV[2])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', users, '-inf', now)
if redis.call('ZSCORE', tokens, name) then return 1 end
for _, held in ipairs(redis.call('ZRANGE', tokens, 0, -1)) do
  if not redis.call('ZSCORE', users, string.match(held, '^(.*):%d+$')) then redis.call('ZREM', tokens, held) end
end
if redis.call('ZCARD', tokens) >= most then return 0 end
redis.call('ZADD', tokens, now, name)
return 1
