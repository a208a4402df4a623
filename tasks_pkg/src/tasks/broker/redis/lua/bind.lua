#!lua flags=allow-oom
-- Add a member to sets, also in a full Redis: it is a few bytes, and without it nobody gets an
-- answer of a worker.
--
-- KEYS  sets
-- ARGV  member

for i = 1, #KEYS do
  redis.call('SADD', KEYS[i], ARGV[1])
end
