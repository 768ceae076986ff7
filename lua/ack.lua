-- ack: Postgres has these entries. Flags: allow-oom
--
-- KEYS  [1] {q}:o outbox stream, then the record {q}:r:<account>:<rid> of every entry
-- ARGV  [1] retention ms of settled records   [2] retention ms of expired records   [3…] the id of every entry
-- Returns the number of entries deleted.
-- Invariant: entries leave by exact id only; a record starts to age only when no entry of it is left in the outbox.
if #KEYS < 1 or #ARGV ~= #KEYS + 1 then return redis.error_reply('ERR ack: wrong number of keys or arguments') end
local OUTBOX, retention, expired_retention = KEYS[1], ARGV[1], ARGV[2]

local deleted = 0
if #KEYS > 1 then deleted = call('XDEL', OUTBOX, unpack(ARGV, 3)) end

local function waits_for_another(record, id)
  local at, _, other = 1
  for _ = 1, record.entry_count do
    _, _, other, at = unpack_fields(RECORD_ENTRY, record.entries, at)
    if other ~= id and #call('XRANGE', OUTBOX, other, other) > 0 then return true end
  end
  return false
end

for i = 2, #KEYS do
  local bytes = call('GET', KEYS[i])
  local record = bytes and unpack_record(bytes)
  if record and record.state ~= PENDING and not waits_for_another(record, ARGV[i + 1]) then
    call('PEXPIRE', KEYS[i], record.state == EXPIRED and expired_retention or retention)
  end
end
return deleted
