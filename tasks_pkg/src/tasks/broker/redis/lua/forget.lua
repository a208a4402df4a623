-- Remove a key that still holds what was seen: its task may have gone on meanwhile.
--
-- KEYS  the key
-- ARGV  what it held
-- Returns 1, or 0 when it holds something else.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
