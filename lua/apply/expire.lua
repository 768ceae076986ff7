-- expire: give back what a due reservation holds, and charge the progress its gateway reported.
--
-- OK · GONE (not pending, or not due) · RANGE · COLD (only when there is progress to charge)
local function finish_expired(op, record)
  local progress = record.progress
  local lines = {}
  if progress > 0 then
    for i, line in ipairs(record.lines) do
      lines[i] = {budget = line.budget, key = line_of(op, line.budget).key, amount = progress}
      if not read_budget(lines[i].key, epoch) then return COLD end
    end
    if out_of_range(lines) then return RANGE end
  end
  give_back(op, record)
  record.state, record.charged_by_expiry, record.charged, record.finished_at = EXPIRED, progress, progress, now
  if progress > 0 then
    record.flags = progress > record.lines[1].amount and ESTIMATED + OVERAGE or ESTIMATED
    book(op, record, KIND_EXPIRY, progress, lines)
  end
  return OK, store(op, record, progress == 0 and expired_retention or nil)
end

local function expire(op, record)
  if not record or record.state ~= PENDING then
    redis.call('ZREM', EXPIRY, op.account .. op.rid)
    return answer(GONE, op)
  end
  if not is_due(record) then return answer(GONE, op) end
  local status, bytes = finish_expired(op, record)
  return answer(status, op, bytes)
end
