if tonumber(ARGV[1]) > 0 then
  redis.call('SETEX', KEYS[1], ARGV[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2])
end
return redis.call('PUBLISH', KEYS[1], ARGV[2])
