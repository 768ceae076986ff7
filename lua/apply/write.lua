-- What the operations write: kept here while they are decided, sent in as few commands as there are kinds at the end.
--
-- Records and index are kept by name, so that what comes last wins and a later operation sees it. Budgets are written
-- from their copies, with the records.
local records, ages, index, entries = {}, {}, {}, {}
local due_known

-- No age, that is no TTL, while a record is pending or not yet in Postgres.
local function store(bytes, age)
  records[op.key], ages[op.key] = bytes, age
  return bytes
end

-- Enters the operation's id into the expiry index; false takes it out.
local function list(expires_at)
  index[op.member], due_known = expires_at, nil
end

local function hold(i, amount)
  if amount == 0 then return end
  local copy = op.copies[i]
  copy.held, copy.changed = copy.held + amount, true
end

-- Whether the index, as this call leaves it so far, has anything that is due.
local function anything_due()
  if due_known ~= nil then return due_known end
  local changes = 0
  due_known = false
  for _, expires_at in pairs(index) do
    changes = changes + 1
    if expires_at and expires_at <= now then due_known = true end
  end
  -- One member more than this call has changed: if as many are due in Redis, one of them still is.
  for _, member in ipairs(call('ZRANGE', EXPIRY, '-inf', now, 'BYSCORE', 'LIMIT', 0, changes + 1)) do
    if index[member] == nil then due_known = true end
  end
  return due_known
end

-- Gives back by the lines in the record, never by what the caller says; a hold of another life is not counted
-- anywhere, and an absent budget has nothing to take back.
local function give_back(record)
  list(false)
  if record.epoch ~= epoch_number then return end
  for i, budget in ipairs(record.budgets) do
    local line = line_of(budget)
    if op.copies[line] then hold(line, -record.amounts[i]) end
  end
end

-- Whether a line would spend more than can be counted. `charges` are the amounts, by the lines of the record.
local function out_of_range(record, charges)
  for i, budget in ipairs(record.budgets) do
    if op.copies[line_of(budget)].spent + charges[i] > MAX_TOTAL then return true end
  end
  return false
end

-- Spends the charges and writes the outbox entry in the same instant:
--   u8 format (1) · 16 bytes account · u8+n rid · u8 kind · i64 tokens · u8 flags · u48 at ms · u8+n model
--   u16+n metadata · u16+n facts · u8 lines, each: u8+n budget, i64 amount
local function book(record, kind, tokens, charges)
  local rid = string.sub(op.member, 17)
  local payload = pack('>Bc16Bc0Bi8BI6Bc0I2c0I2c0B', 1, op.member, #rid, rid, kind, tokens, record.flags, now,
    #record.model, record.model, #record.metadata, record.metadata, #op.facts, op.facts, #record.budgets)
  for i, budget in ipairs(record.budgets) do
    local copy = op.copies[line_of(budget)]
    copy.spent, copy.changed = copy.spent + charges[i], true
    payload = payload .. pack('>Bc0i8', #budget, budget, charges[i])
  end
  local id = string.format('%d-%s', next_oq, nonce)
  entries[#entries + 1], entries[#entries + 2] = id, payload
  record.entries = record.entries .. pack(RECORD_ENTRY, kind, tokens, #id, id)
  record.entry_count = record.entry_count + 1
end

local function write_index()
  local added, removed, size = {}, {}, 0
  -- As text: Redis writes a number with 17 digits, which takes longer than all the rest of its argument.
  local text = {}
  for member, expires_at in pairs(index) do
    if expires_at then
      if not text[expires_at] then text[expires_at] = string.format('%d', expires_at) end
      added[size + 1], added[size + 2], size = text[expires_at], member, size + 2
    else
      removed[#removed + 1] = member
    end
  end
  if size > 0 then call('ZADD', EXPIRY, unpack(added)) end
  if #removed > 0 then call('ZREM', EXPIRY, unpack(removed)) end
end

-- Records, and the budgets that have changed.
local function write_values()
  local values, size = {}, 0
  for key, bytes in pairs(records) do
    values[size + 1], values[size + 2], size = key, bytes, size + 2
  end
  for key, copy in pairs(budgets) do
    if copy and copy.changed then
      values[size + 1], values[size + 2], size = key, pack_budget(copy), size + 2
    end
  end
  if size > 0 then call('MSET', unpack(values)) end
  for key, age in pairs(ages) do call('PEXPIRE', key, age) end
end

-- Counts the operations first. None of these can fail: their arguments are made here, and every key is of its type
-- or was read as such.
local function write_all(sq, oq)
  call('HSET', META, 'sq', sq, 'oq', oq)
  write_index()
  write_values()
  for i = 1, #entries, 2 do call('XADD', OUTBOX, entries[i], 'd', entries[i + 1]) end
end
