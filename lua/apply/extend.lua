-- extend: raise a pending reservation: total hold, expiry from now, progress. Absolute and never downward, so that
-- a repeat, or an older one that comes late, changes nothing.
--
-- OK · REPLAY (nothing to raise) · DENIED · FINISHED · UNKNOWN · STALE · FULL · COLD
local function raise_hold(op, record)
  local account = read_budget(op.lines[1].key, epoch)
  if account.policy ~= op.policy then return answer(STALE, op, struct.pack('>I8', account.policy)) end
  if full then return answer(FULL, op) end
  local short, raises = {}, {}
  for i, line in ipairs(record.lines) do
    local named = line_of(op, line.budget)
    local b = read_budget(named.key, epoch)
    local raise, available = math.max(0, named.amount - line.amount), b.granted - b.spent - b.held
    raises[i] = {budget = b, amount = raise}
    if raise > 0 and available < raise then short[#short + 1] = struct.pack('>BI8i8', i, raise, available) end
  end
  if #short > 0 then return denied(op, short) end
  for i, raise in ipairs(raises) do
    hold(raise.budget, raise.amount)
    record.lines[i].amount = record.lines[i].amount + raise.amount
  end
  return nil
end

local function extend(op, record, bytes)
  if not record then return answer(UNKNOWN, op) end
  if record.state ~= PENDING or is_due(record) then return answer(FINISHED, op, bytes, is_due(record)) end
  local raises = op.tokens > record.lines[1].amount
  local expires_at = math.max(record.expires_at, op.ttl > 0 and now + op.ttl or 0)
  if not raises and expires_at == record.expires_at and op.second <= record.progress then
    return answer(REPLAY, op, bytes)
  end
  if raises then
    local refusal = raise_hold(op, record)
    if refusal then return refusal end
  end
  if expires_at > record.expires_at then
    redis.call('ZADD', EXPIRY, expires_at, op.account .. op.rid)
    record.expires_at = expires_at
  end
  record.progress = math.max(record.progress, op.second)
  return answer(OK, op, store(op, record))
end
