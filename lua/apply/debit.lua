-- debit: a settle without a reservation; exactly once by id.
--
-- OK · REPLAY (same numbers) · MISMATCH · RANGE · COLD. The balance may go below zero: the usage has happened.
local function debit(op, record, bytes)
  if record then
    local same = record.state == SETTLED and record.settle_fingerprint == op.fingerprint
    return answer(same and REPLAY or MISMATCH, op, bytes)
  end
  local lines = spend_lines(op, nil, 0)
  if out_of_range(lines) then return answer(RANGE, op) end
  record = blank_record(op)
  for i, line in ipairs(op.lines) do record.lines[i] = {budget = line.budget, amount = 0} end
  book(op, record, KIND_DEBIT, op.tokens, lines)
  record.state, record.settle_fingerprint, record.charged = SETTLED, op.fingerprint, op.tokens
  return answer(OK, op, store(op, record))
end
