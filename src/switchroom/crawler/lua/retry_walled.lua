local urls = redis.call('ZRANGE', walled, 0, -1)
for _, url in ipairs(urls) do back(url) end
redis.call('DEL', walled)
return #urls
