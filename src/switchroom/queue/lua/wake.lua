-- Holders that wait. Each stands in `idle:` + the skills it offers, by the time since when it is idle; `profiles` names
-- those sets; `waiting` says until when it waits. A call that may be taken wakes the one that has been idle the longest
-- among those that can take it. A waiter is a holder and the inbox of its process: one holder may wait in several.

local stirred = false -- something may be taken now that could not be before

local function stir() stirred = true end

local function forget_waiter(waiter, skills)
  call('ZREM', K .. 'idle:' .. skills, waiter)
  call('HDEL', K .. 'waiting', waiter)
  if call('EXISTS', K .. 'idle:' .. skills) == 0 then call('SREM', K .. 'profiles', skills) end
end

local function backing_off(owner, id)
  local over = call('ZSCORE', K .. 'backoff', owner .. SEPARATOR .. id)
  return over and tonumber(over) > now
end

local WAITER = '^(.*)' .. SEPARATOR .. '(.*)$'
local PATIENCE = 8 -- holders of one profile that are looked at for one call

local function longest_idle(profiles, id, need, refusals)
  local best, best_since, best_skills
  for _, skills in ipairs(profiles) do
    if covers(skills, need) then
      local rows = call('ZRANGE', K .. 'idle:' .. skills, 0, refusals and PATIENCE - 1 or 0, 'WITHSCORES')
      for i = 1, #rows, 2 do
        local since = tonumber(rows[i + 1])
        if best_since and since >= best_since then break end
        if not (refusals and backing_off(rows[i]:match(WAITER), id)) then
          best, best_since, best_skills = rows[i], since, skills
          break
        end
      end
    end
  end
  return best, best_skills
end

-- Wakes a holder for each call at the heads of the lanes, as far as lines are free.
local function wake_holders()
  local profiles = call('SMEMBERS', K .. 'profiles')
  if #profiles == 0 or not hands_out() then return end
  local free = free_lines()
  local refusals = call('EXISTS', K .. 'backoff') == 1
  for _, head in ipairs(free > 0 and heads(nil, refusals and PATIENCE or 1) or {}) do
    local id, need = head[1], head[3]
    if need == MIXED then need = call('HGET', call_key(id), 'k') or '' end
    local waiter, skills = longest_idle(profiles, id, need, refusals)
    while waiter do
      local deadline = call('HGET', K .. 'waiting', waiter) or '0'
      forget_waiter(waiter, skills)
      if tonumber(deadline) > now then
        local owner, inbox = waiter:match(WAITER)
        call('ZADD', K .. 'w:' .. inbox, 0, owner)
        call('PEXPIRE', K .. 'w:' .. inbox, 60000)
        free = free - 1
        break
      end
      waiter, skills = longest_idle(profiles, id, need, refusals) -- that one had gone: the next
    end
    if free < 1 then return end
  end
end

-- Runs once at the end of every script.
local function settle()
  if stirred then wake_holders() end
  write_statistics()
end
