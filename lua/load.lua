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
local granted, version, policy = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local suspended, spent, epoch_number = ARGV[7] == '1', tonumber(ARGV[8]), tonumber(epoch)

local meta = call('HMGET', META, 'st', 'ep', 'sq', 'ri')
if run_id == '' then
  if meta[1] ~= 'recovering' or meta[2] ~= epoch then return {5} end
else
  local refusal = check_head(meta, epoch, run_id, high_water)
  if refusal then return refusal end
end

local sq = tonumber(meta[3])
local current = unpack_budget(call('GET', budget), epoch_number)
if current == false then return redis.error_reply('ERR load: a budget of a format this version does not know') end
if current then return {0, sq, 2} end
call('HSET', META, 'sq', sq + 1)
call('SET', budget, pack_budget({
  epoch = epoch_number, suspended = suspended, granted = granted, version = version, policy = policy, spent = spent,
  held = 0,
}))
return {0, sq + 1, 1}
