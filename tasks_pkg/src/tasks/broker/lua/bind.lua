#!lua flags=allow-oom
for i = 1, #KEYS do
  redis.call('SADD', KEYS[i], ARGV[1])
end
