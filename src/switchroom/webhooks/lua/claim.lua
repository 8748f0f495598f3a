-- Takes deliveries that are due, under a lease; one whose sender died comes back by the end of its lease.
-- ARGV: owner, lease ms, at most this many
-- Returns {ms until something is due (-1: nothing is), {ID, token, fields}, …}
local limit, ends = tonumber(ARGV[3]), text(now + tonumber(ARGV[2]))
local got = {}
for _, target in ipairs(redis.call('ZRANGEBYSCORE', K .. 'targets', '-inf', text(now), 'LIMIT', 0, 100)) do
  local running, due = K .. 'run:' .. target, K .. 'due:' .. target
  redis.call('ZREMRANGEBYSCORE', running, '-inf', text(now))
  local room = math.min(MOST_RUNNING - redis.call('ZCARD', running), limit - #got)
  if room > 0 then
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', text(now), 'LIMIT', 0, room)) do
      local key = K .. 'd:' .. id
      local v = redis.call('HMGET', key, 's', 'o', 'ca')
      if v[1] ~= 'waiting' then
        redis.call('ZREM', due, id)
      else
        if v[2] and v[2] ~= '' then append(key, cjson.encode({ a = tonumber(v[3]), e = 'sender_lost' })) end
        local token = redis.call('HINCRBY', key, 'k', 1)
        redis.call('HSET', key, 'o', ARGV[1], 'ca', text(now), 'x', 0)
        redis.call('ZADD', due, ends, id)
        redis.call('ZADD', running, ends, id)
        got[#got + 1] = { id, token, redis.call('HGETALL', key) }
      end
    end
  end
  refresh(target)
  if #got >= limit then break end
end
local first = redis.call('ZRANGE', K .. 'targets', 0, 0, 'WITHSCORES')
table.insert(got, 1, first[2] and math.max(0, tonumber(first[2]) - now) or -1)
return got
