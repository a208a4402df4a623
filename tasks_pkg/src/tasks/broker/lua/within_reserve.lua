#!lua flags=allow-oom
local memory = redis.pcall('INFO', 'memory')
if type(memory) == 'table' then
  return redis.error_reply('OOM Redis is full, and the reserve is for workers')
end
local used = tonumber(string.match(memory, 'used_memory:(%d+)'))
local most = tonumber(string.match(memory, 'maxmemory:(%d+)'))
if most > 0 and used > 1.1 * most then
  return redis.error_reply('OOM the reserve for workers above maxmemory is used up too')
end
