-- Lets time pass. Calls that ended before a time (ms) are forgotten, and dead letters before another. Returns how many.
-- Also mends what a lost wake left: a holder that waits while there is something for it finds it here.
local FORGET_AT_ONCE = 500
function verbs.tick(ended_before, dead_before)
  tick()
  for _, index in ipairs({ 'backoff', 'available' }) do look('ZREMRANGEBYSCORE', K .. index, '-inf', now_text) end
  look('ZREMRANGEBYSCORE', K .. 'given', '-inf', text(now - 60000))
  if pending_count() > 0 then stirred = true end
  local forgotten = 0
  for index, before in pairs({ ended = ended_before, dead = dead_before }) do
    local over = 0
    for _, entry in ipairs(look('ZRANGEBYSCORE', K .. index, '-inf', '(' .. before, 'LIMIT', 0, FORGET_AT_ONCE)) do
      for id in entry:gmatch('[^' .. SEPARATOR .. ']+') do
        call('DEL', K .. 'c:' .. id, K .. 'p:' .. id)
        over = over + 1
      end
      take_out(index, { entry })
      if over >= FORGET_AT_ONCE then break end
    end
    forgotten = forgotten + over
  end
  return forgotten
end
