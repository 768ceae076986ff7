-- apply: a batch of operations on one partition, equal to running them one by one in order. Flags: allow-oom
--
-- KEYS  [1] {q}:m meta hash   [2] {q}:x expiry zset   [3] {q}:o outbox stream
--       then for every operation: its record {q}:r:<account>:<rid>, and one key for each of its lines
--       {q}:b:<owner><code>; the first line is always the balance of the account.
-- ARGV  [1] epoch             decimal
--       [2] high water        decimal, the largest sq the caller has seen
--       [3] run id            of the Redis server behind this connection
--       [4] nonce             decimal, 62 random bits; second half of the outbox ids, echoed in the reply
--       [5] full              '1': reserves and raising extends answer FULL
--       [6] retention ms      of released records and tombstones
--       [7] expired retention ms
--       [8] recovery window ms after `ra`, in which a settle of an unknown id may be charged
--       [9…] one packed operation each, at most 64, big-endian:
--            u8 verb (1 reserve, 2 settle, 3 debit, 4 release, 5 extend, 6 expire)
--            u8 options (1 usage unknown, 2 Postgres knows no row, 4 witnessed, 8 follows: held back while the
--            operation before it in this call has no definite answer) · u8 lines, at least 1
--            u64 tokens (hold or charge) · u48 ttl ms
--            u64 second: extend: progress tokens; settle: tokens an expiry row in Postgres has charged
--            u64 policy version · 8 bytes fingerprint · u8+n member of the expiry zset: 16 bytes account, then the rid
--            (a UUID as a zero byte and 16 bytes, any other as its text; the same in keys and outbox entries)
--            u8+n model · u16+n metadata · u16+n facts, copied into the outbox entry unread
--            u16+n the lines as in a record, each: u8+n budget, u48 amount
-- Returns {0, sq, now ms, nonce, answer…} or the head's refusal. Each answer is packed:
--       u8 status · u8 due (1: something in the partition is overdue) · u8 suspended
--       i64 granted · i64 spent · i64 held   of the balance, zeros when the status is COLD
--       then by status: DENIED u8 count, each: u8 line, u64 requested, i64 available · STALE u64 policy version
--       · OK, REPLAY, FINISHED, RELEASED, MISMATCH: the record, when there is one; not with the OK of a reserve, whose
--       caller has sent all that is in it
--       status: 1 OK · 2 REPLAY · 3 MISMATCH · 4 FINISHED · 5 DENIED · 6 SUSPENDED · 7 STALE · 8 COLD · 9 FULL
--               10 UNKNOWN · 11 RELEASED · 12 GONE · 13 RANGE · 14 UNREADABLE · 15 HELD_BACK (not run)
-- Invariant: reads, then decides, then writes. Operations are decided one after the other on copies of what they read,
--       so later ones see earlier ones; nothing is written before the last is decided, and what is written then
--       cannot fail. All lines of an operation change or none. A reservation reaches one terminal state, once.
local FIRST_OPERATION, FIRST_KEY, MOST_OPERATIONS = 9, 4, 64
local MAX_OPERATION, MAX_TOTAL = 1000000000000, 9007199254740991

local KEYS, ARGV = KEYS, ARGV
local operations = #ARGV - FIRST_OPERATION + 1
if #KEYS < FIRST_KEY or operations < 1 or operations > MOST_OPERATIONS then
  return redis.error_reply('ERR apply: wrong number of keys or arguments')
end
local META, EXPIRY, OUTBOX = KEYS[1], KEYS[2], KEYS[3]
local epoch, high_water, run_id, nonce = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local full, retention, expired_retention = ARGV[5] == '1', tonumber(ARGV[6]), tonumber(ARGV[7])
local recovery_window = tonumber(ARGV[8])
-- Out of this range Redis would refuse an age, after other writes.
if not retention or retention > MAX_TOTAL or not expired_retention or expired_retention > MAX_TOTAL then
  return redis.error_reply('ERR apply: a retention is no number of milliseconds')
end
