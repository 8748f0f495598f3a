-- ARGV: a dead call, the new call's task, '1' to refuse a caller who has another call that has not ended
-- A dead letter comes back as a new call with the old one's content and place in the line; the old one stays ended.
-- Returns {'ok', new task, state}, {'unknown'}, {'state', state} or {'duplicate', task}
local old, id = ARGV[1], ARGV[2]
local v = call('HMGET', call_key(old), 's', 'id', 'p', 'pr', 'q', 'm', 'u', 'rq')
if not v[1] then return { 'unknown' } end
if v[8] then return { 'ok', v[8], call('HGET', call_key(v[8]), 's') or 'ended' } end
if not call('ZSCORE', K .. 'dead', old) then return { 'state', v[1] } end
if ARGV[3] == '1' then
  local known = call('HGET', K .. 'ids', v[2])
  if known and call('HGET', call_key(known), 's') ~= 'ended' then return { 'duplicate', known } end
end
local payload = cjson.decode(v[3])
local skills = payload.skills or {}
table.sort(skills)
local need = payload.cc and '@cc' or table.concat(skills, SEPARATOR)
local r = create(id, v[2], tonumber(v[4] or 0), tonumber(v[5]), need, 0, tonumber(v[6]), v[7] or '', now,
  { 'p', v[3], 'ro', old })
move(r, 'requeued', { detail = 'again, after ' .. old })
call('HSET', call_key(old), 'rq', id)
call('ZREM', K .. 'dead', old)
call('ZADD', K .. 'ended', now_text, old)
return { 'ok', id, r.s }
