"""What runs inside Redis, each script one atomic step; the times are Redis's own clock.

Two keys of the broker's database hold what workers work on:

``celray:held``
    A hash from delivery tag to ``[message, "", queue]``, in kombu's own form; the message in it is
    what stood in the queue, byte for byte, and need not be JSON. A long message stands there
    alone, and its tag ends with ``@`` and the queue.
``celray:leases``
    A sorted set of the same tags, scored with the time of the last renewal (seconds).

They are not kombu's ``unacked`` and ``unacked_index``: a worker of an older release, or of
somebody else, renews nothing, and its messages must not be taken from it after seconds.
"""

from typing import Final

HELD: Final = "celray:held"
LEASES: Final = "celray:leases"
DEAD: Final = "celray:dead"
REFUSED: Final = "celray:refused"
COUNTS: Final = "celray:counts"

#: KEYS the queues' lists; ARGV seconds added to the lease, most messages, the names of held and
#: leases, what the new tags begin with and their first number, the queue of each list, tags that
#: are done (a fetch takes them along). Gives queue, tag, message, queue, tag, message, ...
#:
#: Nothing is decoded: a message may be any bytes. So the tags are ours: what a message calls its
#: own is its sender's choice, and two could share one. A long message is recorded as it is, with
#: its queue in the tag: to join a record of it, Lua would hold it three times. After a mebibyte no
#: further one is fetched, or a few long ones would take all the memory that Redis has.
#:
#: An empty answer has read every list with EXISTS, so that a tracking client is told when one gets
#: a message. The two names are no KEYS, because Redis 7.0 tracks all of these, read or not: any
#: message of any queue would then wake every worker. A key that is no list is put out of the way
#: for a week, under ASIDE and its name; its answer has no tag, and the new name for a message.
FETCH: Final = """
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
"""

#: KEYS leases; ARGV seconds added to the lease, tags. Gives the tags that are no longer there.
#: A full Redis refuses a script's first write if it may need memory, and no later one: ZREM first.
RENEW: Final = """
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
"""

#: KEYS held, leases; ARGV tags: they are done.
ACK: Final = """
redis.call('HDEL', KEYS[1], unpack(ARGV))
redis.call('ZREM', KEYS[2], unpack(ARGV))
"""

#: KEYS held, leases, the queue's list; ARGV tag, message, "left" (behind the others) or "right"
#: (first of all), the lease's expected score or "". Gives 1, or 0 when somebody was faster.
RESTORE: Final = """
if ARGV[4] ~= '' then
  local score = redis.call('ZSCORE', KEYS[2], ARGV[1])
  if not score or math.abs(tonumber(score) - tonumber(ARGV[4])) > 0.001 then return 0 end
end
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call(ARGV[3] == 'left' and 'LPUSH' or 'RPUSH', KEYS[3], ARGV[2])
return 1
"""

#: KEYS held, leases; ARGV tag, the queue's list, message, tag, list, message, ...: each goes back
#: to the front of its list, the last one named first of all. Gives how many were still held.
RESTORE_ALL: Final = """
local restored = 0
for i = 1, #ARGV, 3 do
  redis.call('ZREM', KEYS[2], ARGV[i])
  if redis.call('HDEL', KEYS[1], ARGV[i]) == 1 then
    redis.call('RPUSH', ARGV[i + 1], ARGV[i + 2])
    restored = restored + 1
  end
end
return restored
"""

#: KEYS leases; ARGV tag, expected score. Renews the lease if it is still as seen; gives 1 or 0.
CLAIM: Final = """
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or math.abs(tonumber(score) - tonumber(ARGV[2])) > 0.001 then return 0 end
local now = redis.call('TIME')
local renewed = tonumber(now[1]) + tonumber(now[2]) / 1e6
redis.call('ZADD', KEYS[1], string.format('%.6f', renewed), ARGV[1])
return 1
"""

#: KEYS held, leases, dead; ARGV tag, letter's id, letter: a held message becomes a dead letter.
BURY: Final = """
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
"""

#: KEYS held, leases, dead, refused (the letters of messages that were refused, by time), counts;
#: ARGV tag, letter's id, letter, most such letters, seconds that one is kept. A held message that
#: cannot be understood becomes a dead letter; the oldest of these make room.
REFUSE: Final = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[1], ARGV[1])
local old = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now - tonumber(ARGV[5]))
local over = redis.call('ZCARD', KEYS[4]) - #old + 1 - tonumber(ARGV[4])
if over > 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[4], #old, #old + over - 1)) do
    old[#old + 1] = id
  end
end
for _, id in ipairs(old) do
  redis.call('ZREM', KEYS[4], id)
  redis.call('HDEL', KEYS[3], id)
end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
redis.call('ZADD', KEYS[4], now, ARGV[2])
redis.call('HINCRBY', KEYS[5], 'refused', 1)
"""

#: KEYS dead, the queue's list; ARGV letter's id, the letter as seen, message. Gives 1, or 0 when
#: the letter is gone or another.
REPLAY: Final = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('LPUSH', KEYS[2], ARGV[3])
return 1
"""

#: KEYS a task's result; ARGV what it was: it is removed if it still is that.
FORGET: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""

#: Redis refuses what may need memory once it is full. What a worker writes lets it finish what it
#: has, which is what empties the queues; so that may take a tenth more than ``maxmemory``. Only the
#: service's own user may ask how much is used; a client's gets the refusal.
_WITHIN_RESERVE: Final = """#!lua flags=allow-oom
local memory = redis.pcall('INFO', 'memory')
if type(memory) == 'table' then
  return redis.error_reply('OOM Redis is full, and the reserve is for workers')
end
local used = tonumber(string.match(memory, 'used_memory:(%d+)'))
local most = tonumber(string.match(memory, 'maxmemory:(%d+)'))
if most > 0 and used > 1.1 * most then
  return redis.error_reply('OOM the reserve for workers above maxmemory is used up too')
end
"""

#: KEYS the queue's list; ARGV message.
PUBLISH: Final = (
    _WITHIN_RESERVE
    + """
return redis.call('LPUSH', KEYS[1], ARGV[1])
"""
)

#: KEYS sets; ARGV member. Adds it to each, also in a full Redis: it is a few bytes, and without it
#: nobody gets an answer of a worker.
BIND: Final = """#!lua flags=allow-oom
for i = 1, #KEYS do
  redis.call('SADD', KEYS[i], ARGV[1])
end
"""

#: KEYS the set of cancelled ids, the result of each; ARGV now, the oldest time that is kept, the
#: most ids, seconds to keep a result (0: for ever), and for each id the id and the result that says
#: so, or "" where the task is known to have begun. Notes them, and stores the result where nothing
#: is there that says how the task goes on or ended. Also in a full Redis: the set is bounded, the
#: result is shorter than the message that goes, and cancelling is how room is made.
CANCEL: Final = """#!lua flags=allow-oom
for i = 2, #KEYS do
  local id, result = ARGV[1 + 2 * i], ARGV[2 + 2 * i]
  redis.call('ZADD', KEYS[1], ARGV[1], id)
  local begins = redis.pcall('GETRANGE', KEYS[i], 0, 40)
  local state = type(begins) == 'string' and string.match(begins, '^{"status": "(%u+)"') or ''
  if result ~= '' and not string.find(' BEYOND ', ' ' .. state .. ' ', 1, true) then
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
""".replace("BEYOND", "SUCCESS FAILURE RETRY REVOKED STARTED PROGRESS")

#: KEYS the result's key; ARGV seconds to keep it (0: for ever), result.
STORE: Final = (
    _WITHIN_RESERVE
    + """
if tonumber(ARGV[1]) > 0 then
  redis.call('SETEX', KEYS[1], ARGV[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2])
end
return redis.call('PUBLISH', KEYS[1], ARGV[2])
"""
)

#: KEYS a chord's body, its size; ARGV body, size (0: not known), seconds to keep them (0: for
#: ever). What is there stays.
CHORD: Final = """
local values = {ARGV[1], tonumber(ARGV[2]) > 0 and ARGV[2] or nil}
for i, value in ipairs(values) do
  if redis.call('SETNX', KEYS[i], value) == 1 and tonumber(ARGV[3]) > 0 then
    redis.call('EXPIRE', KEYS[i], ARGV[3])
  end
end
"""

#: How a stored success begins: Celery writes the state first (``tests/test_ahead.py``).
SUCCEEDED: Final = '{"status": "SUCCESS",'

#: KEYS the result's key, the set of cancelled ids; ARGV result, seconds to keep it (0: for ever),
#: how a success begins; of a start that must not be a copy's (``tasks.duplicates``): the message's
#: digest, the run, the oldest record that counts; and of a start, which a cancelled task must not
#: make, the task's id. A success is final: a task that ran twice must not take it back. Gives 2 for
#: a cancelled task and 1 for a copy, of which nothing is stored: the first to begin is the one that
#: runs. Two copies never have one tag: each fetch makes its own.
STATE: Final = """
if ARGV[7] ~= '' and redis.call('ZSCORE', KEYS[2], ARGV[7]) then return 2 end
local there = ARGV[4] ~= '' and redis.call('GET', KEYS[1])
if there then
  local fine, found = pcall(cjson.decode, there)
  if fine and type(found) == 'table' and found.celray_same == ARGV[4]
    and found.celray_run ~= ARGV[5]
    and (tonumber(found.celray_stored_at) or 0) > tonumber(ARGV[6])
  then return 1 end
end
if redis.call('GETRANGE', KEYS[1], 0, #ARGV[3] - 1) == ARGV[3] then return 0 end
if tonumber(ARGV[2]) > 0 then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[1])
end
redis.call('PUBLISH', KEYS[1], ARGV[1])
return 0
"""
STATE_WITHIN_RESERVE: Final = _WITHIN_RESERVE + STATE


def within_reserve(script: str) -> str:
    """Let a small script of somebody else's write also while Redis is full, without a bound."""
    return "#!lua flags=allow-oom\n" + script
