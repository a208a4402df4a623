-- Remove what is done.
--
-- KEYS  held, leases
-- ARGV  tags

redis.call('HDEL', KEYS[1], unpack(ARGV))
redis.call('ZREM', KEYS[2], unpack(ARGV))
