-- Put held messages back to the front of their queues; the last one named is then the first of all.
--
-- KEYS  held, leases
-- ARGV  tag, the queue's list, message, tag, list, message, ...
-- Returns how many were still held.

local restored = 0
for i = 1, #ARGV, 3 do
  redis.call('ZREM', KEYS[2], ARGV[i])
  if redis.call('HDEL', KEYS[1], ARGV[i]) == 1 then
    redis.call('RPUSH', ARGV[i + 1], ARGV[i + 2])
    restored = restored + 1
  end
end
return restored
