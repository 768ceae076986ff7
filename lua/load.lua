-- load: a cold account's balance from Postgres. Flags: allow-oom
--
-- KEYS  [1] {q}:m meta hash   [2] {q}:b:<owner><code>
-- ARGV  [1] epoch   [2] high water   [3] run id, empty while recovering   [4] granted   [5] version
--       [6] policy version   [7] suspended '0' or '1'   [8] spent
-- Returns {0, sq, 1} OK · {0, sq, 2} WARM (loaded in this epoch already), or the head's refusal; while recovering
--       {5} LOST when another recovery has taken over.
-- Invariant: a budget starts once in an epoch, from what the ledger holds; after that only `apply` moves it.
if #KEYS ~= 2 or #ARGV ~= 8 then return redis.error_reply('ERR load: wrong number of keys or arguments') end
local META, budget, epoch, high_water, run_id = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local granted, version, policy, suspended, spent = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]

local meta = redis.call('HMGET', META, 'st', 'ep', 'sq', 'ri')
if run_id == '' then
  if meta[1] ~= 'recovering' or meta[2] ~= epoch then return {5} end
else
  local refusal = check_head(meta, epoch, run_id, high_water)
  if refusal then return refusal end
end

local sq = tonumber(meta[3])
if redis.call('HGET', budget, 'ep') == epoch then return {0, sq, 2} end
redis.call('HSET', META, 'sq', sq + 1)
redis.call('DEL', budget)
redis.call('HSET', budget, 'gt', granted, 'gv', version, 'pv', policy, 'su', suspended, 'sp', spent, 'hd', 0, 'ep', epoch)
return {0, sq + 1, 1}
