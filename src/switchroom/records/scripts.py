"""Every change of a record, as one server-side script: the row and all its indexes, or nothing."""

from __future__ import annotations

from switchroom.store import Script

WRITE = Script("""
-- KEYS: row, all, session, task, one a state. ARGV: id, state's number, created, body, session id, task id,
-- recording or '', create, then final or not a state.
local row = KEYS[1]
local old = redis.call('HGET', row, 'state')
if old then
  if ARGV[8 + tonumber(old)] == '1' then return 0 end
  if old ~= ARGV[2] then redis.call('ZREM', KEYS[4 + tonumber(old)], ARGV[1]) end
elseif ARGV[8] ~= '1' then
  return 0
end
redis.call('HSET', row, 'state', ARGV[2], 'body', ARGV[4])
if ARGV[7] ~= '' then redis.call('HSET', row, 'recording', ARGV[7]) end
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
if ARGV[5] ~= '' then redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1]) end
if ARGV[6] ~= '' then redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1]) end
redis.call('ZADD', KEYS[4 + tonumber(ARGV[2])], ARGV[3], ARGV[1])
return 1
""")

CLOSE = Script("""
-- KEYS: row, one a state. ARGV: id, state's number, the end, then final or not a state.
-- The end stands beside the body, so that the last turn that the holder saved stays.
local old = redis.call('HGET', KEYS[1], 'state')
if not old or ARGV[3 + tonumber(old)] == '1' then return 0 end
redis.call('HSET', KEYS[1], 'state', ARGV[2], 'end', ARGV[3])
redis.call('ZADD', KEYS[1 + tonumber(ARGV[2])], redis.call('ZSCORE', KEYS[1 + tonumber(old)], ARGV[1]), ARGV[1])
redis.call('ZREM', KEYS[1 + tonumber(old)], ARGV[1])
return 1
""")

ARTEFACTS = Script("""
-- KEYS: row. ARGV: artefacts. They come when the row is final, so they stand beside its body.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'artefacts', ARGV[1])
return 1
""")

DELETE = Script("""
-- KEYS: row, then every index that may hold it. ARGV: id.
for i = 2, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
return redis.call('DEL', KEYS[1])
""")

SELECT = Script("""
-- KEYS: the indexes that must all hold a row. ARGV: lowest and highest score, offset, limit.
-- Reply: how many match (only counted when limit is 0), then id, score, id, score, … from the newest.
-- The smallest index is walked, the others are asked. The first, `all`, holds every row: it is walked only alone.
local base, size = 1, nil
for i = 2, #KEYS do
  local n = redis.call('ZCARD', KEYS[i])
  if size == nil or n < size then base, size = i, n end
end
local others = {}
for i = 2, #KEYS do if i ~= base then others[#others + 1] = KEYS[i] end end
local offset, limit = tonumber(ARGV[3]), tonumber(ARGV[4])
if #others == 0 then
  if limit == 0 then return {redis.call('ZCOUNT', KEYS[base], ARGV[1], ARGV[2])} end
  local rows = redis.call('ZREVRANGEBYSCORE', KEYS[base], ARGV[2], ARGV[1], 'WITHSCORES', 'LIMIT', offset, limit)
  table.insert(rows, 1, 0)
  return rows
end
local found, reply = 0, {0}
local rows = redis.call('ZREVRANGEBYSCORE', KEYS[base], ARGV[2], ARGV[1], 'WITHSCORES')
for i = 1, #rows, 2 do
  local hit = true
  for _, other in ipairs(others) do
    if not redis.call('ZSCORE', other, rows[i]) then hit = false break end
  end
  if hit then
    found = found + 1
    if found > offset and #reply < 1 + 2 * limit then
      reply[#reply + 1] = rows[i]
      reply[#reply + 1] = rows[i + 1]
      if #reply >= 1 + 2 * limit and limit > 0 then break end
    end
  end
end
reply[1] = found
return reply
""")
