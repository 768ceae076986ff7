-- peek: an account's balance and, if asked, one reservation. Flags: no-writes
--
-- KEYS  [1] {q}:m meta hash   [2] {q}:x expiry zset   [3] {q}:b:<owner><code>   [4] record, optional
-- ARGV  [1] epoch   [2] high water   [3] run id
-- Returns {0, sq, now ms, answer} with an answer as apply's (OK or COLD, then the record when there is one), or the
--       head's refusal. Its due byte says that something in the partition is overdue: sweep first, then ask again.
-- Invariant: reader and writer agree, because both count what is due as expired.
if #KEYS < 3 or #KEYS > 4 or #ARGV ~= 3 then
  return redis.error_reply('ERR peek: wrong number of keys or arguments')
end
local META, EXPIRY, key, epoch, high_water, run_id = KEYS[1], KEYS[2], KEYS[3], ARGV[1], tonumber(ARGV[2]), ARGV[3]

local meta = call('HMGET', META, 'st', 'ep', 'sq', 'ri')
local refusal = check_head(meta, epoch, run_id, high_water)
if refusal then return refusal end

local now = read_clock()
local first = call('ZRANGE', EXPIRY, 0, 0, 'WITHSCORES')
local due = first[2] ~= nil and tonumber(first[2]) <= now
local record = KEYS[4] and call('GET', KEYS[4]) or ''
local b = unpack_budget(call('GET', key), tonumber(epoch))
local packed
if b then
  packed = struct.pack('>BBBi8i8i8', 1, due and 1 or 0, b.suspended and 1 or 0, b.granted, b.spent, b.held)
else
  packed = struct.pack('>BBBi8i8i8', 8, 0, 0, 0, 0, 0)
end
return {0, tonumber(meta[3]), now, packed .. record}
