-- ARGV: ended calls before this time (ms) are forgotten, and dead letters before that. Returns how many were forgotten.
-- Also mends what a lost wake left: a holder that waits while there is something for it is woken here.
tick()
for _, index in ipairs({ 'backoff', 'available' }) do call('ZREMRANGEBYSCORE', K .. index, '-inf', now_text) end
if pending_count() > 0 then stir() end
local forgotten = 0
for i, index in ipairs({ 'ended', 'dead' }) do
  for _, id in ipairs(call('ZRANGEBYSCORE', K .. index, '-inf', '(' .. ARGV[i], 'LIMIT', 0, 500)) do
    call('DEL', call_key(id))
    call('ZREM', K .. index, id)
    forgotten = forgotten + 1
  end
end
return forgotten
