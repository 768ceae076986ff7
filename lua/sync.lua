-- sync: Postgres's state of an account, if it is newer than what is here. Flags: allow-oom
--
-- KEYS  [1] {q}:m meta hash   [2] {q}:b:<owner><code>
-- ARGV  [1] epoch   [2] high water   [3] run id   [4] granted   [5] version   [6] policy version
--       [7] suspended '0' or '1'
-- Returns {0, sq, 1} OK · {0, sq, 2} OLD · {0, sq, 3} ABSENT, or the head's refusal.
-- Invariant: a grant arrives as versioned state, never as an increment, so that any number of pushes count it once.
if #KEYS ~= 2 or #ARGV ~= 7 then return redis.error_reply('ERR sync: wrong number of keys or arguments') end
local META, budget, epoch, high_water, run_id = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local granted, version, policy, suspended = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == '1'

local meta = call('HMGET', META, 'st', 'ep', 'sq', 'ri')
local refusal = check_head(meta, epoch, run_id, high_water)
if refusal then return refusal end

local sq = tonumber(meta[3])
local current = unpack_budget(call('GET', budget), tonumber(epoch))
if not current then return {0, sq, 3} end
if version <= current.version then return {0, sq, 2} end
call('HSET', META, 'sq', sq + 1)
current.granted, current.version, current.policy, current.suspended = granted, version, policy, suspended
call('SET', budget, pack_budget(current))
return {0, sq + 1, 1}
