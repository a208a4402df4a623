-- Make a held message that cannot be understood a dead letter; the oldest such letters make room.
--
-- KEYS  held, leases, dead, refused (the letters of refused messages, by time), counts
-- ARGV  tag; the letter's id; the letter; most such letters; seconds that one is kept

local now = tonumber(redis.call('TIME')[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[1], ARGV[1])
local old = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now - tonumber(ARGV[5]))
local over = redis.call('ZCARD', KEYS[4]) - #old + 1 - tonumber(ARGV[4])
if over > 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[4], #old, #old + over - 1)) do
    old[#old + 1] = id
  end
end
for _, id in ipairs(old) do
  redis.call('ZREM', KEYS[4], id)
  redis.call('HDEL', KEYS[3], id)
end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
redis.call('ZADD', KEYS[4], now, ARGV[2])
redis.call('HINCRBY', KEYS[5], 'refused', 1)
