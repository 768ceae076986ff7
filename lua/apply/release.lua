-- release: give everything back, charge nothing.
--
-- OK · REPLAY · FINISHED · COLD. An unknown id leaves a tombstone, so that a late reserve with it is refused.
local function release(op, record, bytes)
  if not record then
    record = blank_record(op)
    record.state = RELEASED
    return answer(OK, op, store(op, record, retention))
  end
  if is_due(record) then
    local status, expired = finish_expired(op, record)
    if status ~= OK then return answer(status, op) end
    return answer(FINISHED, op, expired)
  end
  if record.state == RELEASED then return answer(REPLAY, op, bytes) end
  if record.state ~= PENDING then return answer(FINISHED, op, bytes) end
  give_back(op, record)
  record.state, record.finished_at = RELEASED, now
  return answer(OK, op, store(op, record, retention))
end
