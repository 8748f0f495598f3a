-- ARGV: task. Returns {fields of the call, place, estimate ms}, or an empty list where it is unknown
tick()
local all = redis.call('HGETALL', call_key(ARGV[1]))
if #all == 0 then return {} end
local rank = redis.call('ZRANK', K .. 'pending', ARGV[1])
if not rank then return { all, 0, 0 } end
return { all, rank + 1, estimate(rank + 1) }
