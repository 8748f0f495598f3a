-- Calls as they are stored, under `c:` + task: how a call stands (an array in MessagePack, with its length before it, whose
-- places STATE, MOST, … and their defaults stand above this file), what is its own (OWN), and the lines of its history. What
-- a call carries unchanged is under `p:` + task.
--
-- Calls of a batch mostly stand alike to the last byte. So a run works with calls that stand alike, as one: what becomes
-- of them is worked out once, and written for each. Most verbs load one call. `c` is always such calls:
--   f: how they stand | from: the state in which the indexes have them | n: how many they are | lines: history to be added
-- and of each its place in: ids | keys | tails: its own, with its history | sinces | callers | expiries (nil: none expires)
local sub = string.sub
local OWN = '<I8I8I4c0I8I8I4c0' -- waiting since, expires (0: never), caller, sequence, enqueued, the place told last
local OWN_HEAD = '<I8I8I4c0'

local function get(c, place)
  local value = c.f[place]
  if value == nil then return DEFAULTS[place] end
  return value
end

local function put(c, place, value)
  local f = c.f
  for gap = #f + 1, place - 1 do f[gap] = DEFAULTS[gap] end
  f[place] = value
  c.stored = nil
end

-- A list with room for as many values as there are tasks: one that grows is copied again and again. To be filled.
local function roomy(ids) return { unpack(ids, 1, min(#ids, MOST_WORDS)) } end

local function standing(f, ids)
  return { f = f, from = f[STATE], n = 0, lines = '', ids = roomy(ids), keys = roomy(ids), tails = roomy(ids),
    sinces = roomy(ids), callers = roomy(ids) }
end

local function enrol(c, id, key, tail)
  local i = c.n + 1
  c.n = i
  c.ids[i], c.keys[i], c.tails[i] = id, key, tail
  local expires
  c.sinces[i], expires, c.callers[i] = struct.unpack(OWN_HEAD, tail)
  if expires > 0 then
    if not c.expiries then c.expiries = {} end
    c.expiries[i] = expires
  end
end

-- The records as they are stored now.
local function stored(c)
  if not c.stored then
    local o, how = c.own, pack(c.f)
    if o then
      c.tails[1] = struct.pack(OWN, o.since, o.expires, #o.caller, o.caller, o.sequence, o.enqueued, #o.told, o.told) .. o.past
    end
    local head, rows = struct.pack('<I4', #how) .. how, roomy(c.ids)
    for i = 1, c.n do rows[i] = head .. c.tails[i] .. c.lines end
    c.stored = rows
  end
  return c.stored
end

-- Has the records written at the end of the run.
local function write(c)
  if not c.written then
    c.written = true
    written[#written + 1] = c
  end
  c.stored = nil
end

-- Writes every record that changed, and frees the callers' IDs of the calls that are over.
local function write_records()
  for _, c in ipairs(written) do
    local n = #writes
    local keys, rows = c.keys, stored(c)
    for i = 1, c.n do
      writes[n + 1], writes[n + 2] = keys[i], rows[i]
      n = n + 2
    end
    c.written = false
  end
  for first = 1, #writes, MOST_WORDS do call('MSET', unpack(writes, first, min(first + MOST_WORDS - 1, #writes))) end
  for _, c in ipairs(over_with) do
    for first = 1, c.n, MOST_WORDS do
      local free, last = {}, min(first + MOST_WORDS - 1, c.n)
      for i, id in ipairs(call('HMGET', K .. 'ids', unpack(c.callers, first, last))) do
        if id == c.ids[first + i - 1] then free[#free + 1] = c.callers[first + i - 1] end
      end
      if #free > 0 then call('HDEL', K .. 'ids', unpack(free)) end
    end
  end
  written, writes, over_with = {}, {}, {}
end

local function read(ids)
  local keys, rows = roomy(ids), {}
  for i = 1, #ids do keys[i] = K .. 'c:' .. ids[i] end
  if #keys <= MOST_WORDS then
    if #keys > 0 then rows = call('MGET', unpack(keys)) end
    return keys, rows
  end
  for first = 1, #keys, MOST_WORDS do
    for i, row in ipairs(call('MGET', unpack(keys, first, min(first + MOST_WORDS - 1, #keys)))) do
      rows[first + i - 1] = row
    end
  end
  return keys, rows
end

local function one(id, key, row)
  local own = 5 + struct.unpack('<I4', row)
  local c = standing(cmsgpack.unpack(sub(row, 5, own - 1)), { id })
  enrol(c, id, key, sub(row, own))
  c.stored = { row }
  known[id] = c
  return c
end

-- One call by itself, loaded once a run; nil where it is unknown.
local function load(id)
  if known[id] then return known[id] end
  local key = K .. 'c:' .. id
  local row = call('GET', key)
  return row and one(id, key, row) or nil
end

-- Reads many at once, so that `load` finds them.
local function fetch(ids)
  local wanted = {}
  for _, id in ipairs(ids) do
    if not known[id] then wanted[#wanted + 1] = id end
  end
  local keys, rows = read(wanted)
  for i, id in ipairs(wanted) do
    if rows[i] then one(id, keys[i], rows[i]) end
  end
end

-- Loads calls and returns those that stand alike together, and the tasks of all that are known, in which each has its place
-- (`at`). They are what is stored: so what the run changed before is written first.
local function alike(ids)
  write_records()
  known = {}
  local keys, rows = read(ids)
  local found, by_standing, there = {}, {}, {}
  local c, head
  for i = 1, #ids do
    local row = rows[i]
    if row then
      if not head or sub(row, 1, #head) ~= head then
        head = sub(row, 1, 4 + struct.unpack('<I4', row))
        c = by_standing[head]
        if not c then
          c = standing(cmsgpack.unpack(sub(head, 5)), #found == 0 and ids or {}) -- mostly the first are all
          c.at = {}
          by_standing[head] = c
          found[#found + 1] = c
        end
      end
      enrol(c, ids[i], keys[i], sub(row, #head + 1))
      there[#there + 1] = ids[i]
      c.at[c.n] = #there
    end
  end
  local first = found[1]
  if first then
    for _, list in ipairs({ first.ids, first.keys, first.tails, first.sinces, first.callers }) do
      for i = #list, first.n + 1, -1 do list[i] = nil end
    end
  end
  return found, there
end

-- What is a single call's own. Whoever changes it calls `put_own`.
local function own(c)
  if not c.own then
    local since, expires, caller, sequence, enqueued, told, past = struct.unpack(OWN, c.tails[1])
    c.own = { since = since, expires = expires, caller = caller, sequence = sequence, enqueued = enqueued, told = told,
      past = sub(c.tails[1], past) }
  end
  return c.own
end

local function put_own(c, name, value)
  local o = own(c)
  o[name] = value
  c.sinces[1], c.expiries = o.since, o.expires > 0 and { o.expires } or nil
  c.stored = nil
end

-- A call that is not in the queue yet.
local function create(id, caller, priority, sequence, need, expires, most, hook, since, payload)
  local c = { f = { '', most }, from = '', n = 1, lines = '', ids = { id }, keys = { K .. 'c:' .. id }, tails = {},
    sinces = { since }, callers = { caller }, expiries = expires > 0 and { expires } or nil, payload = payload,
    own = { since = since, expires = expires, caller = caller, sequence = sequence, enqueued = now, told = '', past = '' } }
  known[id] = c
  if priority ~= 0 then put(c, PRIORITY, priority) end
  if need ~= '' then put(c, NEED, need) end
  if hook ~= '' then put(c, HOOK, hook) end
  call('HSET', K .. 'ids', caller, id)
  writes[#writes + 1] = K .. 'p:' .. id
  writes[#writes + 1] = payload
  return c
end

-- Of a single call.
local function payload_of(c)
  if not c.payload then c.payload = call('GET', K .. 'p:' .. c.ids[1]) end
  return c.payload
end
