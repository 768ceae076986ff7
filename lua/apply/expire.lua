-- expire: give back what a due reservation holds, and charge the progress its gateway reported.
--
-- OK · GONE (not pending, or not due) · RANGE · COLD (only when there is progress to charge)
local function finish_expired(record)
  local progress, charges = record.progress, {}
  if progress > 0 then
    if op.cold then return COLD end
    for i = 1, #record.budgets do charges[i] = progress end
    if out_of_range(record, charges) then return RANGE end
  end
  give_back(record)
  record.state, record.charged_by_expiry, record.charged, record.finished_at = EXPIRED, progress, progress, now
  if progress == 0 then return OK, store(pack_record(record), expired_retention) end
  record.flags = progress > record.amounts[1] and ESTIMATED + OVERAGE or ESTIMATED
  book(record, KIND_EXPIRY, progress, charges)
  return OK, store(pack_record(record))
end

local function expire(record)
  if not record or record.state ~= PENDING then
    list(false)
    return answer(GONE)
  end
  if not is_due(record) then return answer(GONE) end
  return answer(finish_expired(record))
end
