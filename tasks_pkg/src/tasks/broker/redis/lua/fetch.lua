-- Take messages from queues and record them with a lease, in one step.
--
-- KEYS  the queues' lists
-- ARGV  seconds added to the lease; most messages; the names of held and leases; what the new tags
--       begin with; their first number; the queue of each list; tags that are done (a fetch takes
--       them along)
-- Returns queue, tag, message, queue, tag, message, ...
--
-- Nothing is decoded: a message may be any bytes. So the tags are ours: what a message calls its
-- own is its sender's choice, and two could share one. A long message is recorded as it is, with
-- its queue in the tag: to join a record of it, Lua would hold it three times. After a mebibyte no
-- further message is fetched, or a few long ones would take all the memory that Redis has.
--
-- An empty answer has read every list with EXISTS, so that a tracking client is told when one gets
-- a message. The two names are no KEYS, because Redis 7.0 tracks all of these, read or not: any
-- message of any queue would then wake every worker. A key that is no list is renamed to
-- celray:aside: and its name, and expires after a week; in the answer its tag is empty, and its
-- message is the new name.

local now = redis.call('TIME')
local score = tonumber(now[1]) + tonumber(now[2]) / 1e6 + tonumber(ARGV[1])
score = string.format('%.6f', score)
local got, most, bytes = {}, tonumber(ARGV[2]), 0
local held, leases, prefix, number = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local first_done = 7 + #KEYS
if #ARGV >= first_done then
  redis.call('HDEL', held, unpack(ARGV, first_done))
  redis.call('ZREM', leases, unpack(ARGV, first_done))
end
for i = 1, #KEYS do
  local queue = ARGV[6 + i]
  while #got < 3 * most and bytes < 1048576 do
    local item = redis.pcall('RPOP', KEYS[i])
    if not item then break end
    if type(item) == 'table' then
      if not string.find(item.err, 'WRONGTYPE', 1, true) then return item end
      local name = 'celray:aside:' .. KEYS[i]
      redis.call('RENAME', KEYS[i], name)
      redis.call('EXPIRE', name, 604800)
      got[#got + 1] = queue
      got[#got + 1] = ''
      got[#got + 1] = name
      break
    end
    local tag = prefix .. number
    number = number + 1
    local record = item
    if #item < 65536 then
      record = '[' .. item .. ',"",' .. cjson.encode(queue) .. ']'
    else
      tag = tag .. '@' .. queue
    end
    redis.call('HSET', held, tag, record)
    redis.call('ZADD', leases, score, tag)
    got[#got + 1] = queue
    got[#got + 1] = tag
    got[#got + 1] = item
    bytes = bytes + #item
  end
end
if #got == 0 and #KEYS > 0 then
  redis.call('EXISTS', unpack(KEYS))
end
return got
