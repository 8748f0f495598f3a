-- Holders that wait. Each stands in `idle:` + the skills it offers, by the time since when it is idle; `profiles` names
-- those sets; `waiting` says until when it waits, and on what terms. A call that may be taken goes to the one that has
-- been idle the longest among those that can take it: at once, if it waits in this flow alone, else it is woken to look.
-- A waiter is a holder and the inbox of its process: one holder may wait in several.

local GRACE_MS = 2000 -- a call that was given to a holder whose process does not say soon that it arrived goes back

local function forget_waiter(waiter, skills)
  call('ZREM', K .. 'idle:' .. skills, waiter)
  call('HDEL', K .. 'waiting', waiter)
  if call('EXISTS', K .. 'idle:' .. skills) == 0 then call('SREM', K .. 'profiles', skills) end
end

local function backing_off(owner, id)
  local over = look('ZSCORE', K .. 'backoff', owner .. SEPARATOR .. id)
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

-- What a process reads from its inbox: the holder's name, and where it got a call also task, token, how the call stands,
-- what is its own, and its payload.
local function notify(inbox, message)
  call('RPUSH', K .. 'w:' .. inbox, pack(message))
  call('PEXPIRE', K .. 'w:' .. inbox, 60000)
end

-- Takes the waiters of a call in turn until one is there: gives it the call, or wakes it. Returns whether there was one.
local function find_holder(profiles, id, need, refusals)
  while true do
    local waiter, skills = longest_idle(profiles, id, need, refusals)
    if not waiter then return false end
    local deadline, lease, offer, at_once, direct = (call('HGET', K .. 'waiting', waiter) or '0:0:0::')
      :match('^(%d+):(%d+):(%d+):(1?):(1?)$')
    forget_waiter(waiter, skills)
    if tonumber(deadline) > now then -- else that one has gone: the next
      local owner, inbox = waiter:match(WAITER)
      if direct == '1' then
        local c = load(id)
        local token = next_token()
        take(c, terms_of(owner, tonumber(lease), tonumber(offer), at_once, GRACE_MS), token)
        put_in('given', { id .. SEPARATOR .. text(token) }, now_text)
        local o = own(c)
        notify(inbox, { owner, id, token, c.f, { o.since, o.expires, o.caller, o.sequence, o.enqueued, o.told }, payload_of(c) })
      else
        notify(inbox, { owner })
      end
      return true
    end
  end
end

-- Finds a holder for each of the first calls of the lanes, as far as lines are free.
local MOST_AT_ONCE = 64
local function wake_holders()
  local profiles = call('SMEMBERS', K .. 'profiles')
  if #profiles == 0 or not hands_out() then return end
  local free = free_lines()
  if free < 1 then return end
  local refusals = look('EXISTS', K .. 'backoff') == 1
  local nobody = {} -- needs that no holder who waits meets
  local ids, lane_of = heads(nil, min(free, MOST_AT_ONCE))
  for i, id in ipairs(ids) do
    local need = lane_of[i]
    if need == MIXED then need = get(load(id), NEED) end
    if not nobody[need] then
      if find_holder(profiles, id, need, refusals) then free = free - 1 else nobody[need] = not refusals end
    end
    if free < 1 then return end
  end
end
