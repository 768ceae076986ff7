-- open: ends a recovery; the partition serves again. Flags: allow-oom
--
-- KEYS  [1] {q}:m meta hash
-- ARGV  [1] epoch   [2] base of sq and oq, above all that was ever seen   [3] run id of this Redis server
--       [4] '1' when something may have been lost, '0' for the first opening of a new deployment
-- Returns {0, now ms} · {5} LOST: another recovery has taken over.
-- Invariant: only the recovery that fenced the partition opens it.
if #KEYS ~= 1 or #ARGV ~= 4 then return redis.error_reply('ERR open: wrong number of keys or arguments') end
local META, epoch, base, run_id, recovered = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local meta = redis.call('HMGET', META, 'st', 'ep')
if meta[1] ~= 'recovering' or meta[2] ~= epoch then return {5} end
local now = read_clock()
redis.call('HSET', META, 'st', 'open', 'sq', base, 'oq', base, 'ri', run_id)
if recovered == '1' then redis.call('HSET', META, 'ra', now) end
return {0, now}
