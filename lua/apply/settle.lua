-- settle: charge what was used, give back the rest.
--
-- OK · REPLAY (same numbers) · MISMATCH · RELEASED · UNKNOWN · RANGE · COLD
-- Expired: charged late, without a hold to return; if expiry charged progress, the difference is a correction.
-- Unknown: charged only when Postgres has an expiry row to correct, within the recovery window (the reservation was
-- acked and lost; real usage must not be free), or as the replay of a settle that a witness acked.
local function lost_in_recovery()
  local recovered_at = tonumber(call('HGET', META, 'ra') or '')
  return recovered_at ~= nil and now - recovered_at <= recovery_window
end

local function settle_without_record(released)
  local permitted = asks(WITNESSED) or (not released and (op.second > 0 or (asks(NO_ROW) and lost_in_recovery())))
  if not permitted or asks(USAGE_UNKNOWN) then return nil end
  local record = blank_record(op.count)
  record.flags = op.second > 0 and LATE or RECOVERED
  record.charged_by_expiry = op.second
  return record
end

local function settled_before(record, bytes)
  local same = record.settle_fingerprint == op.fingerprint
  if record.settle_fingerprint == NO_FINGERPRINT or asks(WITNESSED) then
    same = asks(USAGE_UNKNOWN) or record.charged == op.tokens
  end
  return answer(same and REPLAY or MISMATCH, bytes)
end

local function charge_flags(record, held, tokens, usage_unknown)
  if held and (record.state == EXPIRED or is_due(record)) then record.flags = LATE end
  if held and tokens > held then record.flags = record.flags + OVERAGE end
  if usage_unknown then record.flags = record.flags + ESTIMATED end
end

-- What the record's lines spend: the caller's amounts, or with unknown usage what was held; less what an expiry has
-- charged.
local function charges_of(record, usage_unknown)
  local charges = {}
  for i, budget in ipairs(record.budgets) do
    local amount = usage_unknown and record.amounts[i] or op.amounts[line_of(budget)]
    charges[i] = amount - record.charged_by_expiry
  end
  return charges
end

local function settle(record, bytes)
  local held = nil
  if record and record.state == SETTLED then return settled_before(record, bytes) end
  if not record or record.state == RELEASED then
    local released = record ~= nil
    record = settle_without_record(released)
    if not record then return answer(released and RELEASED_ALREADY or UNKNOWN, bytes) end
  else
    held = record.amounts[1]
    record.flags = 0
  end

  local usage_unknown, charged = asks(USAGE_UNKNOWN), record.charged_by_expiry
  local tokens, charges = usage_unknown and held or op.tokens, charges_of(record, usage_unknown)
  if out_of_range(record, charges) then return answer(RANGE) end
  charge_flags(record, held, tokens, usage_unknown)
  if held and record.state == PENDING then give_back(record) end
  if op.model ~= '' then record.model = op.model end
  book(record, charged > 0 and KIND_CORRECTION or KIND_SETTLE, tokens - charged, charges)
  record.state, record.settle_fingerprint, record.charged, record.finished_at = SETTLED, op.fingerprint, tokens, now
  return answer(OK, store(pack_record(record)))
end
