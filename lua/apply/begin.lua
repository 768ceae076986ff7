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
--       [9…] one packed operation each, big-endian:
--            u8 verb (1 reserve, 2 settle, 3 debit, 4 release, 5 extend, 6 expire)
--            u8 options (1 usage unknown, 2 Postgres knows no row, 4 witnessed, 8 follows: held back while the
--            operation before it in this call has no definite answer)
--            16 bytes account · u64 tokens (hold or charge) · u48 ttl ms
--            u64 second: extend: progress tokens; settle: tokens an expiry row in Postgres has charged
--            u64 policy version · 8 bytes fingerprint · u8+n rid · u8+n model · u16+n metadata
--            u16+n facts, copied into the outbox entry unread · u8 lines, each: u8+n budget, u48 amount
-- Returns {0, sq, now ms, nonce, answer…} or the head's refusal. Each answer is packed:
--       u8 status · u8 due (1: something in the partition is overdue) · u8 suspended
--       i64 granted · i64 spent · i64 held   of the balance, zeros when the status is COLD
--       then by status: DENIED u8 count, each: u8 line, u64 requested, i64 available · STALE u64 policy version
--       · OK, REPLAY, FINISHED, RELEASED, MISMATCH: the record, when there is one
--       status: 1 OK · 2 REPLAY · 3 MISMATCH · 4 FINISHED · 5 DENIED · 6 SUSPENDED · 7 STALE · 8 COLD · 9 FULL
--               10 UNKNOWN · 11 RELEASED · 12 GONE · 13 RANGE · 14 UNREADABLE · 15 HELD_BACK (not run)
-- Invariant: nothing is written before the head and every operation have been read; from then on no command can
--       fail. All lines of an operation change or none. A reservation reaches one terminal state, once.
local OK, REPLAY, MISMATCH, FINISHED, DENIED, SUSPENDED, STALE = 1, 2, 3, 4, 5, 6, 7
local COLD, FULL, UNKNOWN, RELEASED_ALREADY, GONE, RANGE, UNREADABLE, HELD_BACK = 8, 9, 10, 11, 12, 13, 14, 15
local USAGE_UNKNOWN, NO_ROW, WITNESSED, FOLLOWS = 1, 2, 4, 8
local OVERAGE, ESTIMATED, LATE, RECOVERED = 1, 2, 4, 8
local KIND_SETTLE, KIND_DEBIT, KIND_EXPIRY, KIND_CORRECTION = 1, 2, 3, 4
local FIRST_OPERATION = 9
local MAX_OPERATION, MAX_TOTAL = 1000000000000, 9007199254740991

if #KEYS < 3 or #ARGV < FIRST_OPERATION then return redis.error_reply('ERR apply: wrong number of keys or arguments') end
local META, EXPIRY, OUTBOX = KEYS[1], KEYS[2], KEYS[3]
local epoch, high_water, run_id, nonce = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local full, retention, expired_retention, recovery_window = ARGV[5] == '1', ARGV[6], ARGV[7], tonumber(ARGV[8])
