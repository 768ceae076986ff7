-- reserve: hold the amount on every line, or on none.
--
-- OK · REPLAY (pending, same fingerprint) · MISMATCH · FINISHED (a retry must not admit a call that holds nothing)
-- · SUSPENDED · STALE · FULL · DENIED (every short line) · COLD
local function shortfalls(op)
  local short = {}
  for i, line in ipairs(op.lines) do
    local b = read_budget(line.key, epoch)
    local available = b.granted - b.spent - b.held
    if line.amount > 0 and available < line.amount then
      short[#short + 1] = struct.pack('>BI8i8', i, line.amount, available)
    end
  end
  return short
end

local function denied(op, short)
  return answer(DENIED, op, struct.pack('>B', #short) .. table.concat(short), anything_due())
end

local function reserve(op, record, bytes)
  if record then
    if record.fingerprint ~= NO_FINGERPRINT and record.fingerprint ~= op.fingerprint then
      return answer(MISMATCH, op, bytes)
    end
    if record.state ~= PENDING or is_due(record) then return answer(FINISHED, op, bytes, is_due(record)) end
    return answer(REPLAY, op, bytes)
  end
  local account = read_budget(op.lines[1].key, epoch)
  if account.suspended then return answer(SUSPENDED, op) end
  if account.policy ~= op.policy then return answer(STALE, op, struct.pack('>I8', account.policy)) end
  if full then return answer(FULL, op) end
  local short = shortfalls(op)
  if #short > 0 then return denied(op, short) end

  record = blank_record(op)
  record.fingerprint, record.expires_at = op.fingerprint, now + op.ttl
  for i, line in ipairs(op.lines) do
    hold(read_budget(line.key, epoch), line.amount)
    record.lines[i] = line
  end
  redis.call('ZADD', EXPIRY, record.expires_at, op.account .. op.rid)
  return answer(OK, op, store(op, record))
end
