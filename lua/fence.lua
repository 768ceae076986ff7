-- fence: closes the partition for a recovery, also when its keys are gone. Flags: allow-oom
--
-- KEYS  [1] {q}:m meta hash   [2] {q}:o outbox stream
-- ARGV  [1] epoch of this recovery attempt
-- Returns {0, sq, oq, last outbox sequence} · {1, epoch} NEWER: a later attempt, or this one already opened.
-- Invariant: the epoch is the fence token; an attempt that has been overtaken changes nothing.
if #KEYS ~= 2 or #ARGV ~= 1 then return redis.error_reply('ERR fence: wrong number of keys or arguments') end
local META, OUTBOX, epoch = KEYS[1], KEYS[2], ARGV[1]

local m = redis.call('HMGET', META, 'st', 'ep', 'sq', 'oq')
local current = tonumber(m[2]) or 0
if current > tonumber(epoch) or (current == tonumber(epoch) and m[1] == 'open') then return {1, current} end

local last = 0
if redis.call('EXISTS', OUTBOX) == 1 then
  local info = redis.call('XINFO', 'STREAM', OUTBOX)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = tonumber(string.match(info[i + 1], '^(%d+)')) end
  end
end
local sq, oq = tonumber(m[3]) or 0, tonumber(m[4]) or 0
redis.call('HSET', META, 'st', 'recovering', 'ep', epoch, 'sq', sq, 'oq', oq, 'ri', '')
return {0, sq, oq, last}
