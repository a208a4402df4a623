if ARGV[4] ~= '' then
  local score = redis.call('ZSCORE', KEYS[2], ARGV[1])
  if not score or math.abs(tonumber(score) - tonumber(ARGV[4])) > 0.001 then return 0 end
end
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call(ARGV[3] == 'left' and 'LPUSH' or 'RPUSH', KEYS[3], ARGV[2])
return 1
