-- One run: a verb on a flow, with its arguments as one list in MessagePack. Whatever it stirred up is settled in any case, and all of it is written.
local function begin(key)
  K = key
  local clock = call('TIME')
  now = clock[1] * 1000 + floor(clock[2] / 1000)
  now_text = text(now)
  settings, known_lanes, stirred, hooked, aht, longest = nil, nil, false, false, nil, 0
  moves, numbers, known, written, writes, changed, over_with, tally = {}, {}, {}, {}, {}, {}, {}, {}
end

return function(keys, args)
  begin(keys[1])
  local reply = verbs[args[1]](unpack(cmsgpack.unpack(args[2])))
  if stirred then wake_holders() end
  flush()
  write_records()
  write_changes()
  write_figures()
  return reply
end
