-- What became of calls: the lines of their history, and the changes for the event stream and the outbox.

-- One line of a history, an array that ends with its last value: time, state, cause, attempt, owner, reason, detail.
local function line_of_history(state, cause, attempt, owner, reason, detail)
  local head = ',[' .. now_text .. ',"' .. state .. '",' .. cjson.encode(cause)
  if detail ~= '' or reason ~= '' then
    return head .. ',' .. attempt .. ',' .. cjson.encode(owner) .. ',"' .. reason .. '",' .. cjson.encode(detail) .. ']'
  end
  if owner ~= '' then return head .. ',' .. attempt .. ',' .. cjson.encode(owner) .. ']' end
  if attempt > 0 then return head .. ',' .. attempt .. ']' end
  return head .. ']'
end

-- Tells of a change, which need not be one of the state.
local function tell_change(c, state, cause, previous, owner, reason, detail)
  local attempt = c.f[ATTEMPT] or 0
  if not c.changes then
    c.changes = {}
    changed[#changed + 1] = c
  end
  c.changes[#c.changes + 1] = { state, cause, owner, previous, attempt, reason, detail }
  c.lines = c.lines .. line_of_history(state, cause, attempt, owner, reason, detail)
  c.stored = nil
  if c.f[HOOK] == '1' then hooked = true end
end

-- An entry of the stream holds the changes of a run: for calls that stood alike {{state, cause, owner, previous, attempt,
-- reason, detail}, …} and {task, caller, …}, to each of which all of these happened, in this order. Each has a number.
--
-- The outbox holds only what a webhook may want (a run that touches no call with a callback URL, in a flow without
-- endpoints, writes none), and is emptied by whoever turned an entry into messages: unlike the event stream it never
-- forgets by length.
local NUMBERS = 64
local function write_changes()
  if #changed == 0 then return end
  local outbox = hooked or conf('hooks', 0) > 0
  local entry, numbers = {}, 0
  local function write_entry()
    local packed = pack(entry)
    local id = call('XADD', K .. 'events', 'MAXLEN', '~', 50000, '*', 'b', packed)
    if outbox then call('XADD', K .. 'outbox', id, 'b', packed) end
    entry, numbers = {}, 0
  end
  for _, c in ipairs(changed) do
    local each = #c.changes
    local at_once = floor(NUMBERS / each)
    for first = 1, c.n, at_once do
      local last = min(first + at_once - 1, c.n)
      local taken = (last - first + 1) * each
      if numbers > 0 and numbers + taken > NUMBERS then write_entry() end
      local calls, n = {}, 0
      for i = first, last do
        calls[n + 1], calls[n + 2] = c.ids[i], c.callers[i]
        n = n + 2
      end
      entry[#entry + 1] = { c.changes, calls }
      numbers = numbers + taken
    end
    c.changes = nil
  end
  write_entry()
  changed = {}
end
