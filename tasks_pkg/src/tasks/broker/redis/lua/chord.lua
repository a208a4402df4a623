-- Store a chord's body and size; what is there stays.
--
-- KEYS  a chord's body, its size
-- ARGV  body; size (0: not known); seconds to keep them (0: for ever)

local values = {ARGV[1], tonumber(ARGV[2]) > 0 and ARGV[2] or nil}
for i, value in ipairs(values) do
  if redis.call('SETNX', KEYS[i], value) == 1 and tonumber(ARGV[3]) > 0 then
    redis.call('EXPIRE', KEYS[i], ARGV[3])
  end
end
