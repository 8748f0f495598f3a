-- Who is there. Returns {{owner, skills, idle since}, …} of those that wait, {{owner, until}, …} of those that rest after
-- a call, and {{task, record}, …} of the calls that are held; at most MOST of each.
function verbs.holders()
  tick()
  local MOST = 1000
  local waiting, resting, held, ids = {}, {}, {}, {}
  for _, skills in ipairs(call('SMEMBERS', K .. 'profiles')) do
    local rows = call('ZRANGE', K .. 'idle:' .. skills, 0, MOST - #waiting - 1, 'WITHSCORES')
    for i = 1, #rows, 2 do
      local deadline = (call('HGET', K .. 'waiting', rows[i]) or '0'):match('^%d+')
      if tonumber(deadline) > now then waiting[#waiting + 1] = { (rows[i]:match(WAITER)), skills, rows[i + 1] } end
    end
    if #waiting >= MOST then break end
  end
  local rows = look('ZRANGEBYSCORE', K .. 'available', '(' .. now_text, '+inf', 'WITHSCORES', 'LIMIT', 0, MOST)
  for i = 1, #rows, 2 do resting[#resting + 1] = { rows[i], rows[i + 1] } end
  for _, index in ipairs({ 'held', 'wrapup' }) do
    for _, id in ipairs(look('ZRANGE', K .. index, 0, MOST - 1)) do ids[#ids + 1] = id end
  end
  fetch(ids)
  for i, id in ipairs(ids) do held[i] = { id, stored(load(id))[1] } end
  return { waiting, resting, held }
end
