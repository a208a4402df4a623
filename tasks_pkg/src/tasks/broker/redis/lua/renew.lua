-- Renew leases.
--
-- KEYS  leases
-- ARGV  seconds added to the lease; tags
-- Returns the tags that are no longer there.
--
-- A full Redis refuses a script's first write if it may need memory, and no later one: ZREM first.

local now = redis.call('TIME')
local score = string.format('%.6f', tonumber(now[1]) + tonumber(now[2]) / 1e6 + tonumber(ARGV[1]))
local lost = {}
redis.call('ZREM', KEYS[1], '')
for i = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], 'XX', score, ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
