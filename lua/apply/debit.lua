-- debit: a settle without a reservation; exactly once by id.
--
-- OK · REPLAY (same numbers) · MISMATCH · RANGE · COLD. The balance may go below zero: the usage has happened.
local function debit(record, bytes)
  if record then
    local same = record.state == SETTLED and record.settle_fingerprint == op.fingerprint
    return answer(same and REPLAY or MISMATCH, bytes)
  end
  record = blank_record(op.count)
  if out_of_range(record, op.amounts) then return answer(RANGE) end
  book(record, KIND_DEBIT, op.tokens, op.amounts)
  record.state, record.settle_fingerprint, record.charged = SETTLED, op.fingerprint, op.tokens
  return answer(OK, store(pack_record(record)))
end
