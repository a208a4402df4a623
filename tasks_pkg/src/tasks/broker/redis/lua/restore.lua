-- Put a held message back into its queue.
--
-- KEYS  held, leases, the queue's list
-- ARGV  tag; message; "left" (behind the others) or "right" (first of all); the lease's expected
--       score, or "" for any
-- Returns 1, or 0 when somebody was faster.

if ARGV[4] ~= '' then
  local score = redis.call('ZSCORE', KEYS[2], ARGV[1])
  if not score or math.abs(tonumber(score) - tonumber(ARGV[4])) > 0.001 then return 0 end
end
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call(ARGV[3] == 'left' and 'LPUSH' or 'RPUSH', KEYS[3], ARGV[2])
return 1
