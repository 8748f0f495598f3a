-- ARGV: owner, lease ms, offer ms, task. Its caller is on the line; callers that waited before it go first, and one whose
-- process stopped asking is forgotten.
-- Returns {'held', {task, token, fields}}, {'wait', place}, or where it does not wait {'state', its state, its reason},
-- or {'reserved'}: it has a `ccBaseUrl`
tick()
local owner, lease, offer, id = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local r = load(id)
if not r or r.s ~= 'pending' then return { 'state', r and r.s or '', r and r.reason or '' } end
if r.need == '@cc' then return { 'reserved' } end
call('ZADD', K .. 'joined', order(r.priority, r.sequence), id)
call('HSET', call_key(id), 'j', now_text)
local STILL_ASKING_MS = 15000
local before = 0
for _, other in ipairs(call('ZRANGE', K .. 'joined', 0, -1)) do
  if other == id then break end
  local seen = call('HGET', call_key(other), 'j')
  if seen and tonumber(seen) > now - STILL_ASKING_MS then before = before + 1 else call('ZREM', K .. 'joined', other) end
end
if not hands_out() or before >= free_lines() then return { 'wait', before + 1 } end
return { 'held', take(r, owner, lease, offer, false) }
