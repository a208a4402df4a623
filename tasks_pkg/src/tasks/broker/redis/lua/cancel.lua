#!lua flags=allow-oom
-- Note cancelled tasks, and store the result of each that has none saying how it goes on or ended.
--
-- KEYS  the set of cancelled ids; the result of each
-- ARGV  now; the oldest time that is kept; the most ids; seconds to keep a result (0: for ever);
--       for each id the id, and the result that says so, or "" where the task is known to have
--       begun
--
-- Also in a full Redis: the set is bounded, the result is shorter than the message that goes, and
-- cancelling is how room is made.

local beyond = ' SUCCESS FAILURE RETRY REVOKED STARTED PROGRESS '
for i = 2, #KEYS do
  local id, result = ARGV[1 + 2 * i], ARGV[2 + 2 * i]
  redis.call('ZADD', KEYS[1], ARGV[1], id)
  local begins = redis.pcall('GETRANGE', KEYS[i], 0, 40)
  local state = type(begins) == 'string' and string.match(begins, '^{"status": "(%u+)"') or ''
  if result ~= '' and not string.find(beyond, ' ' .. state .. ' ', 1, true) then
    if tonumber(ARGV[4]) > 0 then
      redis.call('SET', KEYS[i], result, 'EX', ARGV[4])
    else
      redis.call('SET', KEYS[i], result)
    end
    redis.call('PUBLISH', KEYS[i], result)
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[3]))
