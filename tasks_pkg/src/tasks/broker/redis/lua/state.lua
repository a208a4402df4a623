-- Store a state, unless the task is cancelled, runs already as another copy, or has succeeded.
--
-- KEYS  the result's key, the set of cancelled ids
-- ARGV  result; seconds to keep it (0: for ever); how a success begins;
--       of a start that must not be a copy's (tasks.results.deduplication): the message's
--       digest, the run, the oldest record that counts;
--       of a start, which a cancelled task must not make: the task's id
-- Returns 2 for a cancelled task and 1 for a copy, of which nothing is stored, and 0 otherwise.
--
-- A success is final: a task that ran twice must not take it back. The first copy to begin is the
-- one that runs. Two copies never have one tag: each fetch makes its own.

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
