-- ARGV: first, last place of the page. Dead letters, newest first. Returns {how many there are, {fields of a call}}
tick()
local page = {}
for _, id in ipairs(call('ZREVRANGE', K .. 'dead', ARGV[1], ARGV[2])) do
  page[#page + 1] = { id, call('HGETALL', call_key(id)) }
end
return { call('ZCARD', K .. 'dead'), page }
