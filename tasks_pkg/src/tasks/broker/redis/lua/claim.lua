-- Renew a lease if it is still as seen, so that one worker alone deals with what lapsed.
--
-- KEYS  leases
-- ARGV  tag; expected score
-- Returns 1, or 0 when it is another.

local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or math.abs(tonumber(score) - tonumber(ARGV[2])) > 0.001 then return 0 end
local now = redis.call('TIME')
local renewed = tonumber(now[1]) + tonumber(now[2]) / 1e6
redis.call('ZADD', KEYS[1], string.format('%.6f', renewed), ARGV[1])
return 1
