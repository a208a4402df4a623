-- Send a dead letter's message again.
--
-- KEYS  dead, the queue's list
-- ARGV  the letter's id; the letter as seen; message
-- Returns 1, or 0 when the letter is gone or another.

if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('LPUSH', KEYS[2], ARGV[3])
return 1
