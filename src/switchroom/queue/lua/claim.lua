-- ARGV: owner, lease ms, offer ms, at most this many, '1' if they are answered at once, skills of the holder,
--       ms it waits if there is nothing ('' not at all), its inbox, since when it is idle ('' now),
--       '1' if it takes no call before its wrap-up time is over;
--       then for each call that it finishes first: task, token, reason, detail, outcome, result
-- Returns {list of {task, token, fields of the call}, tasks that it had lost, idle since, ms that it rests}
tick()
local owner, lease, offer, skills = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[6]
local wait_ms, inbox = ARGV[7], ARGV[8]

local lost = {}
for i = 11, #ARGV, 6 do
  local r = load(ARGV[i], TO_FINISH)
  if not holds(r, owner, ARGV[i + 1]) or not finish(r, ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]) then
    lost[#lost + 1] = ARGV[i]
  end
end

local since = ARGV[9] ~= '' and ARGV[9] or now_text
if ARGV[10] == '1' then
  local available = tonumber(call('ZSCORE', K .. 'available', owner) or 0)
  if available > now then return { {}, lost, since, available - now } end
end

local held, free, want = {}, 0, tonumber(ARGV[4])
if want > 0 and hands_out() then
  free = free_lines()
  want = min(free, want)
end
if free > 0 and want > 0 then
  local PATIENCE = 64 -- calls of a lane that are looked at beyond those wanted, when some may be backing off
  local refusals = call('EXISTS', K .. 'backoff') == 1
  local careful = refusals or #lanes() >= MOST_LANES
  for _, head in ipairs(heads(skills, want + (careful and PATIENCE or 0))) do
    if #held >= want then break end
    local r = load_whole(head[1])
    local mine = head[3] ~= MIXED or covers(skills, r.need)
    if mine and not (refusals and backing_off(owner, r.id)) then
      held[#held + 1] = take(r, owner, lease, offer, ARGV[5] == '1')
    end
  end
  -- What is left may be for another holder that waits; what this one may not take woke the others when it came.
  if #held > 0 and free > #held then stir() end
end

if wait_ms ~= '' then
  local waiter = owner .. SEPARATOR .. inbox
  if #held > 0 then
    forget_waiter(waiter, skills)
    call('ZREM', K .. 'w:' .. inbox, owner)
  else
    call('ZADD', K .. 'idle:' .. skills, since, waiter)
    call('SADD', K .. 'profiles', skills)
    call('HSET', K .. 'waiting', waiter, text(now + tonumber(wait_ms)))
  end
end
return { held, lost, since, 0 }
