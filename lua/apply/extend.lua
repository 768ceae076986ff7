-- extend: raise a pending reservation: total hold, expiry from now, progress. Absolute and never downward, so that
-- a repeat, or an older one that comes late, changes nothing.
--
-- OK · REPLAY (nothing to raise) · DENIED · FINISHED · UNKNOWN · STALE · FULL · COLD
local function raise_hold(record)
  local account = op.copies[1]
  if account.policy ~= op.policy then return answer(STALE, pack('>I8', account.policy)) end
  if full then return answer(FULL) end
  local raises = {}
  for i = 1, op.count do raises[i] = 0 end
  for i, budget in ipairs(record.budgets) do
    local line = line_of(budget)
    raises[line] = math.max(0, op.amounts[line] - record.amounts[i])
  end
  local short = shortfalls(raises)
  if short then return denied(short) end
  for i, budget in ipairs(record.budgets) do
    local line = line_of(budget)
    hold(line, raises[line])
    record.amounts[i] = record.amounts[i] + raises[line]
  end
  record.lines = pack_lines(record.budgets, record.amounts)
  return nil
end

local function extend(record, bytes)
  if not record then return answer(UNKNOWN) end
  if record.state ~= PENDING or is_due(record) then return answer(FINISHED, bytes, is_due(record)) end
  local raises = op.tokens > record.amounts[1]
  local expires_at = math.max(record.expires_at, op.ttl > 0 and now + op.ttl or 0)
  if not raises and expires_at == record.expires_at and op.second <= record.progress then
    return answer(REPLAY, bytes)
  end
  if raises then
    local refusal = raise_hold(record)
    if refusal then return refusal end
  end
  if expires_at > record.expires_at then
    list(expires_at)
    record.expires_at = expires_at
  end
  record.progress = math.max(record.progress, op.second)
  return answer(OK, store(pack_record(record)))
end
