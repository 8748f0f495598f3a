-- The waiting line. Calls that anybody may take stand in `pending`; those that need skills stand in a lane for that set
-- of skills, so that a claim never walks over calls that it may not take. A call's place counts all of them.

local MOST_LANES = 64
local MIXED = '*' -- when there are too many different sets: a lane whose calls are looked at one by one

-- Higher priority first, then the order of arrival; both fit the 53 bits of a score.
local BAND = 1e12
local function order(priority, sequence) return text(-priority * BAND + sequence) end

local function lane_index(lane)
  if lane == '' then return 'pending' end
  return 'lane:' .. lane
end

local function lanes()
  if not known_lanes then known_lanes = call('SMEMBERS', K .. 'lanes') end
  return known_lanes
end

-- Puts a call into the line and returns the lane where it stands.
local function stand(id, need, score)
  local lane = need
  if lane ~= '' and call('SISMEMBER', K .. 'lanes', lane) == 0 then
    if call('SCARD', K .. 'lanes') >= MOST_LANES then lane = MIXED end
    call('SADD', K .. 'lanes', lane)
    known_lanes = nil
  end
  put_in(lane_index(lane), { id }, score)
  return lane
end

local function leave(ids, lane)
  take_out(lane_index(lane), ids)
  if lane ~= '' and look('EXISTS', K .. lane_index(lane)) == 0 then
    call('SREM', K .. 'lanes', lane)
    known_lanes = nil
  end
end

local function pending_count()
  local count = look('ZCARD', K .. 'pending')
  for _, lane in ipairs(lanes()) do count = count + look('ZCARD', K .. lane_index(lane)) end
  return count
end

-- How many calls stand before this score.
local function ahead(score)
  local count = look('ZCOUNT', K .. 'pending', '-inf', '(' .. score)
  for _, lane in ipairs(lanes()) do count = count + look('ZCOUNT', K .. lane_index(lane), '-inf', '(' .. score) end
  return count
end

-- May a holder that offers `skills` take a call that needs `need`? A set that begins with '@' is a line of its own.
local function covers(skills, need)
  if skills:sub(1, 1) == '@' or need:sub(1, 1) == '@' then return skills == need end
  if need == '' then return true end
  local offered = SEPARATOR .. skills .. SEPARATOR
  for skill in need:gmatch('[^' .. SEPARATOR .. ']+') do
    if not offered:find(SEPARATOR .. skill .. SEPARATOR, 1, true) then return false end
  end
  return true
end

-- The first calls of the lanes that these skills may serve (nil: of every lane), best first, at most `most` a lane:
-- their tasks, and the lane of each.
local function heads(skills, most)
  local served = {}
  if not skills or skills:sub(1, 1) ~= '@' then served[1] = '' end
  if skills ~= '' then
    for _, lane in ipairs(lanes()) do
      if not skills or lane == MIXED or covers(skills, lane) then served[#served + 1] = lane end
    end
  end
  local ids, lane_of = {}, {}
  if #served == 1 then -- they stand in order already
    local lane = served[1]
    ids = look('ZRANGE', K .. lane_index(lane), 0, most - 1)
    for i = 1, #ids do lane_of[i] = lane end
    return ids, lane_of
  end
  local found = {}
  for _, lane in ipairs(served) do
    local rows = look('ZRANGE', K .. lane_index(lane), 0, most - 1, 'WITHSCORES')
    for i = 1, #rows, 2 do found[#found + 1] = { rows[i], tonumber(rows[i + 1]), lane } end
  end
  table.sort(found, function(a, b) return a[2] < b[2] end)
  for i, head in ipairs(found) do ids[i], lane_of[i] = head[1], head[3] end
  return ids, lane_of
end

-- Milliseconds until a line is free for the call at this place (1 is next).
local function estimate(place)
  local closed_ms = 0
  local open, opens = opening()
  if not open and opens > 0 then closed_ms = opens - now end
  local lines, free = conf('lines', 4), free_lines()
  if place <= free then return closed_ms end
  return closed_ms + ceil((place - max(free, 0)) * conf('aht_ms', 120000) / lines)
end

-- The place that a call is told: it never grows, unless more calls of a higher priority stand before it than when it
-- was told the last time; then it is the true one and `overtaken` is 1. `told` is what is stored of the last time:
-- place:higher:least, `least` being the least place that was ever told and not overtaken. Returns the place, overtaken,
-- and what is to be stored ('' where nothing changed).
local function tell(place, priority, told)
  local before, higher, least = (told or ''):match('^(%d+):(%d+):(%d+)$')
  if not before then
    local over = ahead(order(priority, 0))
    return place, 0, place .. ':' .. over .. ':' .. place
  end
  before, higher, least = tonumber(before), tonumber(higher), tonumber(least)
  if place == before then return place, place > least and 1 or 0, '' end
  local over = ahead(order(priority, 0))
  if place > before and over <= higher then return before, before > least and 1 or 0, '' end
  if place <= least then least = place end
  return place, place > least and 1 or 0, text(place) .. ':' .. over .. ':' .. text(least)
end
