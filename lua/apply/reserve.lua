-- reserve: hold the amount on every line, or on none.
--
-- OK · REPLAY (pending, same fingerprint) · MISMATCH · FINISHED (a retry must not admit a call that holds nothing)
-- · SUSPENDED · STALE · FULL · DENIED (every short line) · COLD
local function reserved_before(record, bytes)
  if record.fingerprint ~= NO_FINGERPRINT and record.fingerprint ~= op.fingerprint then
    return answer(MISMATCH, bytes)
  end
  if record.state ~= PENDING or is_due(record) then return answer(FINISHED, bytes, is_due(record)) end
  return answer(REPLAY, bytes)
end

-- The packed lines that ask for more than there is, or nil.
local function shortfalls(amounts)
  local short = nil
  for i = 1, op.count do
    local copy, amount = op.copies[i], amounts[i]
    local available = copy.granted - copy.spent - copy.held
    if amount > 0 and available < amount then
      short = short or {}
      short[#short + 1] = pack('>BI8i8', i, amount, available)
    end
  end
  return short
end

local function denied(short)
  return answer(DENIED, pack('>B', #short) .. table.concat(short), anything_due())
end

local function reserve(record, bytes)
  if record then return reserved_before(record, bytes) end
  local account = op.copies[1]
  if account.suspended then return answer(SUSPENDED) end
  if account.policy ~= op.policy then return answer(STALE, pack('>I8', account.policy)) end
  if full then return answer(FULL) end
  local short = shortfalls(op.amounts)
  if short then return denied(short) end

  for i = 1, op.count do hold(i, op.amounts[i]) end
  local expires_at = now + op.ttl
  list(expires_at)
  store(pack_head(PENDING, 0, epoch_number, op.fingerprint, now, expires_at, 0, op.model, op.metadata, op.count, op.lines))
  return answer(OK)
end
