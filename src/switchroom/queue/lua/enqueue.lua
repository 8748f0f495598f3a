-- ARGV: task, caller ID, payload, priority, not before ms, expires ms, max attempts, duplicates mode, cap,
--       idempotency key, digest, seconds to keep the key, '1' if it has a callback URL,
--       revision of the flow that these rules were read from ('' for unchecked), skills it needs
-- Returns: {'ok' | 'joined' | 'again', task, state, pending count, place, estimate ms, overtaken}, {'duplicate', task},
--          {'mismatch'}, {'full'}, {'stale'}
local id, caller, need = ARGV[1], ARGV[2], ARGV[15]
if ARGV[14] ~= '' and call('HGET', K .. 'doc', 'rev') ~= ARGV[14] then return { 'stale' } end

local key = K .. 'idem:' .. ARGV[10]
if ARGV[10] ~= '' then
  local known = call('GET', key)
  if known then
    local digest, joined, reply = unpack(cjson.decode(known))
    if digest ~= ARGV[11] then return { 'mismatch' } end
    return { joined and 'joined' or 'again', unpack(reply) }
  end
end

local function answer(word, r)
  local reply = { r.id, r.s, pending_count(), 0, 0, 0 }
  if r.s == 'pending' then
    local place, overtaken, told = tell(ahead(order(r.priority, r.sequence)) + 1, r.priority, r.told)
    if told ~= '' then call('HSET', call_key(r.id), 'pt', told) end
    reply[4], reply[5], reply[6] = place, estimate(place), overtaken
  end
  if ARGV[10] ~= '' then call('SET', key, cjson.encode({ ARGV[11], word == 'joined', reply }), 'EX', ARGV[12]) end
  return { word, unpack(reply) }
end

if ARGV[8] ~= 'allow' then
  local known = call('HGET', K .. 'ids', caller)
  local r = known and load(known)
  if r and r.s ~= 'ended' then
    if ARGV[8] == 'reject' then return { 'duplicate', known } end
    if r.s == 'pending' or r.s == 'scheduled' then
      put(r, 'p', ARGV[3])
      put(r, 'u', ARGV[13])
      if r.need ~= need then
        r.need = need
        put(r, 'k', need)
      end
      save(r)
    end
    return answer('joined', r)
  end
end

local cap = tonumber(ARGV[9])
if cap > 0 and pending_count() + call('ZCARD', K .. 'scheduled') >= cap then return { 'full' } end

-- A caller waits from the time asked for, or from the opening, not from the enqueue.
local not_before = tonumber(ARGV[5])
local since = max(now, not_before)
local open, opens = opening()
if not open then since = max(since, opens) end
local sequence = call('HINCRBY', K .. 'conf', 'seq', 1)
local fields = { 'p', ARGV[3] }
if not_before > 0 then fields = { 'p', ARGV[3], 'nb', ARGV[5] } end
local r = create(id, caller, tonumber(ARGV[4]), sequence, need, tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[13], since,
  fields)
move(r, not_before > now and 'scheduled' or 'enqueued', { score = ARGV[5] })
return answer('ok', r)
