local p = cmsgpack.unpack(ARGV[1])
local now = now_ms()

local function count(name, n) redis.call('HINCRBY', stats, name, n) end
local function tell(event) redis.call('XADD', events, 'MAXLEN', '~', p.max_events, '*', 'data', event) end

for _, url in ipairs(p.released) do
  if redis.call('HDEL', taken, url) == 1 then
    redis.call('HINCRBY', tries, url, 1)
    back(url)
  end
end
for _, url in ipairs(p.returned) do
  if redis.call('HDEL', taken, url) == 1 then back(url) end
end
for _, url in ipairs(p.walled) do
  if redis.call('HDEL', taken, url) == 1 or redis.call('HEXISTS', pages, url) == 1 then
    redis.call('HDEL', pages, url)
    redis.call('SREM', finals, url)
    redis.call('ZADD', walled, now, url)
  end
end
for _, done in ipairs(p.done) do
  redis.call('HDEL', taken, done.url)
  redis.call('ZREM', walled, done.url)
  -- A runner that came back from the dead may bring what another has finished meanwhile: that counts once.
  if redis.call('HEXISTS', pages, done.url) == 0 then
    local final = done.final
    -- An address that leads to another one of the job leaves the page to that one.
    local other = final and final ~= done.url and redis.call('HEXISTS', seen, final) == 1
    if other or (final and redis.call('SADD', finals, final) == 0) then
      redis.call('HSET', pages, done.url, done.dup)
      count('fetched', 1)
      count('skipped:duplicate', 1)
      tell(done.dup_event)
    else
      redis.call('HSET', pages, done.url, done.record)
      for name, n in pairs(done.counts) do count(name, n) end
      tell(done.event)
    end
    redis.call('HDEL', tries, done.url)
  end
end
for name, n in pairs(p.counts) do count(name, n) end
local known = redis.call('HLEN', seen)
for _, link in ipairs(p.links) do
  if redis.call('HEXISTS', seen, link[1]) == 0 then
    if known >= p.cap then
      count('dropped:frontier_full', 1)
    else
      known = known + 1
      redis.call('HSET', seen, link[1], link[2])
      back(link[1])
      count('found', 1)
    end
  end
end
for _, event in ipairs(p.events) do tell(event) end
for _, pattern in ipairs(p.closed) do
  if redis.call('SCARD', closed) < p.max_closed then redis.call('SADD', closed, pattern) end
end
if p.holding then
  local held = redis.call('HGETALL', taken)
  for i = 1, #held, 2 do
    if held[i + 1] == p.runner and not p.holding[held[i]] then
      redis.call('HDEL', taken, held[i])
      back(held[i])
    end
  end
end

local out = {0}
local room = p.max_pages - redis.call('HLEN', pages) - redis.call('HLEN', taken) - redis.call('ZCARD', walled)
local n = math.min(p.take, room)
if n > 0 then
  local got = redis.call('ZPOPMIN', queue, n)
  for i = 1, #got, 2 do
    redis.call('HSET', taken, got[i], p.runner)
    out[#out + 1] = got[i]
    out[#out + 1] = redis.call('HGET', seen, got[i])
    out[#out + 1] = redis.call('HGET', tries, got[i]) or 0
  end
end
out[1] = redis.call('HLEN', taken)
return out
