#!lua flags=allow-oom
-- How a script begins that a worker may run while Redis is full.
--
-- Redis refuses what may need memory once it is full. What a worker writes lets it finish what it
-- has, which is what empties the queues; so that may take a tenth more than maxmemory. Only the
-- service's own user may ask how much is used; a client's gets the refusal.

local memory = redis.pcall('INFO', 'memory')
if type(memory) == 'table' then
  return redis.error_reply('OOM Redis is full, and the reserve is for workers')
end
local used = tonumber(string.match(memory, 'used_memory:(%d+)'))
local most = tonumber(string.match(memory, 'maxmemory:(%d+)'))
if most > 0 and used > 1.1 * most then
  return redis.error_reply('OOM the reserve for workers above maxmemory is used up too')
end
