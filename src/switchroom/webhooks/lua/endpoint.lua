-- Writes an endpoint if it still is what the writer read. KEYS[2] is the queue's configuration of the flow, whose `hooks`
-- tells the queue's scripts whether anybody listens.
-- ARGV: ID, the endpoint as it was read ('' for none), as it shall be ('' removes it), '1' if it gets the flow's messages
-- Returns 1, 0 (somebody else changed it) or -1 (too many)
local endpoints = K .. 'endpoints'
local stored = redis.call('HGET', endpoints, ARGV[1])
if (stored or '') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then
  redis.call('HDEL', endpoints, ARGV[1])
else
  if not stored and redis.call('HLEN', endpoints) >= MOST_ENDPOINTS then return -1 end
  redis.call('HSET', endpoints, ARGV[1], ARGV[3])
end
redis.call(ARGV[4] == '1' and 'SADD' or 'SREM', K .. 'enabled', ARGV[1])
redis.call('HSET', KEYS[2], 'hooks', redis.call('SCARD', K .. 'enabled'))
return 1
