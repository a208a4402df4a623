#!lua flags=allow-oom
for i = 2, #KEYS do
  local id, result = ARGV[1 + 2 * i], ARGV[2 + 2 * i]
  redis.call('ZADD', KEYS[1], ARGV[1], id)
  local begins = redis.pcall('GETRANGE', KEYS[i], 0, 40)
  local state = type(begins) == 'string' and string.match(begins, '^{"status": "(%u+)"') or ''
  if result ~= '' and not string.find(' BEYOND ', ' ' .. state .. ' ', 1, true) then
    if tonumber(ARGV[4]) > 0 then
      redis.call('SET', KEYS[i], result, 'EX', ARGV[4])
    else
      redis.call('SET', KEYS[i], result)
    end
    redis.call('PUBLISH', KEYS[i], result)
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[3]))
