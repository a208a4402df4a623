-- Store a result and tell who waits for it. Begins with within_reserve.lua.
--
-- KEYS  the result's key
-- ARGV  seconds to keep it (0: for ever); result
-- Returns how many were told.

if tonumber(ARGV[1]) > 0 then
  redis.call('SETEX', KEYS[1], ARGV[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2])
end
return redis.call('PUBLISH', KEYS[1], ARGV[2])
