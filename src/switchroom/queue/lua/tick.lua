-- ARGV: ended calls before this time (ms) are forgotten. Returns how many were forgotten.
tick()
local old = redis.call('ZRANGEBYSCORE', K .. 'ended', '-inf', ARGV[1], 'LIMIT', 0, 500)
for _, id in ipairs(old) do
  redis.call('DEL', call_key(id))
  redis.call('ZREM', K .. 'ended', id)
end
return #old
