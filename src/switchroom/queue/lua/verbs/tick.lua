-- Lets time pass. Calls that ended before a time (ms) are forgotten, and dead letters before another. Returns how many.
-- Also mends what a lost wake left: a holder that waits while there is something for it finds it here.
function verbs.tick(ended_before, dead_before)
  tick()
  for _, index in ipairs({ 'backoff', 'available' }) do look('ZREMRANGEBYSCORE', K .. index, '-inf', now_text) end
  look('ZREMRANGEBYSCORE', K .. 'given', '-inf', text(now - 60000))
  if pending_count() > 0 then stirred = true end
  local forgotten = 0
  for index, before in pairs({ ended = ended_before, dead = dead_before }) do
    for _, id in ipairs(look('ZRANGEBYSCORE', K .. index, '-inf', '(' .. before, 'LIMIT', 0, 500)) do
      call('DEL', K .. 'c:' .. id, K .. 'p:' .. id)
      place_in(index, id, false)
      forgotten = forgotten + 1
    end
  end
  return forgotten
end
