-- carry: what recovery makes of pending reservations that Redis still has. Flags: allow-oom
--
-- KEYS  [1] {q}:m meta hash   [2] {q}:x expiry zset
--       then for every reservation: its record, and the budget key of each of its lines in the record's order
-- ARGV  [1] epoch   [2] retention ms of settled   [3] retention ms of expired
--       [4…] packed: u8 verdict (0 carried over, 1 settled in the ledger, 2 expired in the ledger)
--            u64 tokens charged · u8 lines · u8+n member of the expiry zset
-- Returns {0, carried} · {5} LOST: another recovery has taken over.
-- Invariant: every hold is counted in this epoch exactly once, also when the call is repeated; progress reported
--       before the loss is dropped, so that what is carried over expires as released, never charged.
if #KEYS < 2 or #ARGV < 3 then return redis.error_reply('ERR carry: wrong number of keys or arguments') end
local META, EXPIRY, epoch, retention, expired_retention = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]

local meta = call('HMGET', META, 'st', 'ep')
if meta[1] ~= 'recovering' or meta[2] ~= epoch then return {5} end
local now, epoch_number = read_clock(), tonumber(epoch)

local function finish(key, member, record, state, charged)
  call('ZREM', EXPIRY, member)
  record.state, record.charged, record.finished_at = state, charged, now
  record.charged_by_expiry = state == EXPIRED and charged or 0
  call('SET', key, pack_record(record), 'PX', state == EXPIRED and expired_retention or retention)
end

local function carry_over(key, record, first_budget)
  if record.epoch == epoch_number then return end
  record.epoch, record.progress = epoch_number, 0
  for i, amount in ipairs(record.amounts) do
    local budget = KEYS[first_budget + i - 1]
    local loaded = unpack_budget(call('GET', budget), epoch_number)
    if loaded then
      loaded.held = loaded.held + amount
      call('SET', budget, pack_budget(loaded))
    end -- else its account is gone: there is nothing to hold it on
  end
  call('SET', key, pack_record(record))
end

-- All of the arguments are read before the first write.
local reservations, following = {}, 3
for i = 4, #ARGV do
  local verdict, charged, lines, member = struct.unpack('>BI8BBc0', ARGV[i])
  reservations[i - 3] = {key = following, verdict = verdict, charged = charged, member = member}
  following = following + 1 + lines
end
if following ~= #KEYS + 1 then return redis.error_reply('ERR carry: keys and verdicts differ') end

local carried = 0
for _, reservation in ipairs(reservations) do
  local key, member, verdict = reservation.key, reservation.member, reservation.verdict
  local bytes = call('GET', KEYS[key])
  local record = bytes and unpack_record(bytes)
  if not bytes or (record and record.state ~= PENDING) then
    call('ZREM', EXPIRY, member)
  elseif record and verdict == 0 then
    carry_over(KEYS[key], record, key + 1)
    carried = carried + 1
  elseif record then
    finish(KEYS[key], member, record, verdict == 1 and SETTLED or EXPIRED, reservation.charged)
  end -- else of an unknown format: left for a version that knows it
end
return {0, carried}
