-- due: members of the expiry index that are overdue, oldest first. Flags: no-writes
--
-- KEYS  [1] {q}:x expiry zset
-- ARGV  [1] most members to return, 1 … 64
-- Returns {now ms, expiry ms of the oldest or 0, member…}; a member is 16 bytes account, then the rid.
-- Invariant: finds by the index, never by a scan.
if #KEYS ~= 1 or #ARGV ~= 1 then return redis.error_reply('ERR due: wrong number of keys or arguments') end
local EXPIRY, most = KEYS[1], ARGV[1]

local now = read_clock()
local members = redis.call('ZRANGE', EXPIRY, '-inf', now, 'BYSCORE', 'LIMIT', 0, most, 'WITHSCORES')
local reply = {now, tonumber(members[2]) or 0}
for i = 1, #members, 2 do reply[#reply + 1] = members[i] end
return reply
