-- settle: charge what was used, give back the rest.
--
-- OK · REPLAY (same numbers) · MISMATCH · RELEASED · UNKNOWN · RANGE · COLD
-- Expired: charged late, without a hold to return; if expiry charged progress, the difference is a correction.
-- Unknown: charged only when Postgres has an expiry row to correct, within the recovery window (the reservation was
-- acked and lost; real usage must not be free), or as the replay of a settle that a witness acked.
local function settle_without_record(op, released)
  local within = recovered_at and now - recovered_at <= recovery_window
  local permitted = op.witnessed or (not released and (op.second > 0 or (op.no_row and within)))
  if not permitted or op.usage_unknown then return nil end
  local record = blank_record(op)
  for i, line in ipairs(op.lines) do record.lines[i] = {budget = line.budget, amount = 0} end
  record.flags = op.second > 0 and LATE or RECOVERED
  record.charged_by_expiry = op.second
  return record
end

local function settled_before(op, record, bytes)
  local same = record.settle_fingerprint == op.fingerprint
  if record.settle_fingerprint == NO_FINGERPRINT or op.witnessed then
    same = op.usage_unknown or record.charged == op.tokens
  end
  return answer(same and REPLAY or MISMATCH, op, bytes)
end

local function charge_flags(op, record, held, tokens)
  if held and (record.state == EXPIRED or is_due(record)) then record.flags = LATE end
  if held and tokens > held then record.flags = record.flags + OVERAGE end
  if op.usage_unknown then record.flags = record.flags + ESTIMATED end
end

local function settle(op, record, bytes)
  local held = nil
  if record and record.state == SETTLED then return settled_before(op, record, bytes) end
  if not record or record.state == RELEASED then
    local released = record ~= nil
    record = settle_without_record(op, released)
    if not record then return answer(released and RELEASED_ALREADY or UNKNOWN, op, released and bytes or nil) end
  else
    held = record.lines[1].amount
    record.flags = 0
  end

  local charged = record.charged_by_expiry
  local lines = spend_lines(op, record, charged)
  local tokens = op.usage_unknown and held or op.tokens
  if out_of_range(lines) then return answer(RANGE, op) end
  charge_flags(op, record, held, tokens)
  if held and record.state == PENDING then give_back(op, record) end
  if op.model ~= '' then record.model = op.model end
  book(op, record, charged > 0 and KIND_CORRECTION or KIND_SETTLE, tokens - charged, lines)
  record.state, record.settle_fingerprint, record.charged, record.finished_at = SETTLED, op.fingerprint, tokens, now
  return answer(OK, op, store(op, record))
end
