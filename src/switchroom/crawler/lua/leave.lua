return drop_runner(ARGV[1])
