-- release: give everything back, charge nothing.
--
-- OK · REPLAY · FINISHED · COLD. An unknown id leaves a tombstone, so that a late reserve with it is refused.
local function release(record, bytes)
  if not record then
    record = blank_record(0)
    record.state = RELEASED
    return answer(OK, store(pack_record(record), retention))
  end
  if is_due(record) then
    local status, expired = finish_expired(record)
    if status ~= OK then return answer(status) end
    return answer(FINISHED, expired)
  end
  if record.state == RELEASED then return answer(REPLAY, bytes) end
  if record.state ~= PENDING then return answer(FINISHED, bytes) end
  give_back(record)
  record.state, record.finished_at = RELEASED, now
  return answer(OK, store(pack_record(record), retention))
end
