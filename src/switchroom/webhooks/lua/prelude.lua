-- Shared by the scripts of webhooks. KEYS[1] is the prefix of the flow's webhook keys; the limits stand above this line.
local K = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function text(number) return string.format('%.0f', number) end

local function append(key, entry)
  local log = redis.call('HGET', key, 'l')
  -- ten tries fit easily; someone who redelivers for ever keeps the newest
  if log and log ~= '' and #log < 65536 then entry = log .. ',' .. entry end
  redis.call('HSET', key, 'l', entry)
end

-- Notes when there is something to do for a target: its first due delivery, or a free place among those under way.
local function refresh(target)
  local running, due = K .. 'run:' .. target, K .. 'due:' .. target
  redis.call('ZREMRANGEBYSCORE', running, '-inf', text(now))
  local index = redis.call('ZCARD', running) >= MOST_RUNNING and running or due
  local first = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')
  if first[1] then
    redis.call('ZADD', K .. 'targets', first[2], target)
  else
    redis.call('ZREM', K .. 'targets', target)
  end
end
