-- Make a held message a dead letter.
--
-- KEYS  held, leases, dead
-- ARGV  tag; the letter's id; the letter

redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
