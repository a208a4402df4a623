-- Put a message into its queue. Begins with within_reserve.lua.
--
-- KEYS  the queue's list
-- ARGV  message
-- Returns the queue's length.

return redis.call('LPUSH', KEYS[1], ARGV[1])
