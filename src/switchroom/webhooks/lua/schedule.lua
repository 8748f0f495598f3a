-- Turns entries of the queue's outbox (KEYS[2]) into deliveries: whoever removes an entry makes its messages, all of it
-- here or nothing, so that an entry is neither lost nor doubled however many processes read it.
-- ARGV, for each entry: its ID, the number of messages, and for each: ID, endpoint, target, task, type, URL, body
-- Returns {entries taken, messages made, messages dropped}
local at, taken, made, dropped = 1, 0, 0, 0
while ARGV[at] do
  local fresh = redis.call('XDEL', KEYS[2], ARGV[at]) == 1
  if fresh then taken = taken + 1 end
  local messages = tonumber(ARGV[at + 1])
  at = at + 2
  for _ = 1, messages do
    local id, endpoint, target, task = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    if fresh and tonumber(redis.call('HGET', K .. 'open', endpoint) or 0) >= MOST_OPEN then
      redis.call('HINCRBY', K .. 'open', endpoint .. ':dropped', 1)
      dropped = dropped + 1
    elseif fresh then
      redis.call('HSET', K .. 'd:' .. id, 'ep', endpoint, 'tg', target, 't', task, 'y', ARGV[at + 4], 'u', ARGV[at + 5],
        'b', ARGV[at + 6], 's', 'waiting', 'n', 0, 'c', text(now), 'x', 0)
      redis.call('HINCRBY', K .. 'open', endpoint, 1)
      redis.call('ZADD', K .. 'log:' .. endpoint, text(now), id)
      -- Messages of one call wait in its lane until the one before was tried once.
      if redis.call('RPUSH', K .. 'lane:' .. target .. ':' .. task, id) == 1 then
        redis.call('ZADD', K .. 'due:' .. target, text(now), id)
        refresh(target)
      end
      made = made + 1
    end
    at = at + 7
  end
end
return { taken, made, dropped }
