-- ARGV: owner, its skills, its inbox. The holder waits here no more; a wake that reached it is passed on.
forget_waiter(ARGV[1] .. SEPARATOR .. ARGV[3], ARGV[2])
if call('ZREM', K .. 'w:' .. ARGV[3], ARGV[1]) == 1 then stir() end
return 1
