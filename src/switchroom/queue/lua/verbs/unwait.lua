-- The holder waits here no more; a wake that reached it is passed on.
function verbs.unwait(owner, skills, inbox)
  forget_waiter(owner .. SEPARATOR .. inbox, skills)
  if call('LREM', K .. 'w:' .. inbox, 0, pack({ owner })) > 0 then stirred = true end
  return 1
end
