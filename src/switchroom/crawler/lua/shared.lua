local queue, taken, walled, seen, pages, stats, events, tries, finals, runners, closed, job, discover = unpack(KEYS)

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Nearer pages first, and within a depth in the order in which they came.
local function back(url)
  local depth = tonumber(redis.call('HGET', seen, url) or 0)
  redis.call('ZADD', queue, depth * 1e10 + redis.call('HINCRBY', stats, 'seq', 1), url)
end

-- Puts back what a runner holds; returns how many URLs that were.
local function drop_runner(runner)
  local held, n = redis.call('HGETALL', taken), 0
  for i = 1, #held, 2 do
    if held[i + 1] == runner then
      redis.call('HDEL', taken, held[i])
      back(held[i])
      n = n + 1
    end
  end
  redis.call('ZREM', runners, runner)
  if redis.call('GET', discover) == runner then redis.call('DEL', discover) end
  return n
end
