-- The operation at hand, and what all verbs share.
--
-- One operation is decided at a time, so one table does for all. `budgets` and `amounts` are its lines, `lines` their
-- bytes, `copies` the copy of each line's budget, false when there is none.
local VERBS, OPERATION = 6, '>I8I6I8I8c8Bc0Bc0I2c0I2c0I2c0'
local op = {
  key = '', member = '', options = 0, tokens = 0, ttl = 0, second = 0, policy = 0, fingerprint = '', model = '',
  metadata = '', facts = '', count = 0, lines = '', budgets = {}, amounts = {}, copies = {}, cold = false, readable = true,
}

local now, epoch_number, next_oq
-- Copies of the budgets by key, read once per call, so that later operations see what earlier ones did: nil when cold,
-- false when unreadable.
local budgets = {}

-- Takes the operation whose record is the key at `first`, and answers its verb and the key after its last; nil when
-- it is malformed.
local function read_operation(packed, first)
  local verb, at
  verb, op.options, op.count = byte_of(packed, 1, 3)
  if verb < 1 or verb > VERBS or op.count == 0 then return nil end
  op.tokens, op.ttl, op.second, op.policy, op.fingerprint, op.member, op.model, op.metadata, op.facts, op.lines =
    unpack_fields(OPERATION, packed, 4)
  if op.tokens > MAX_OPERATION or op.second > MAX_OPERATION then return nil end
  op.key, op.cold, op.readable, at = KEYS[first], false, true, 1
  for i = 1, op.count do
    op.budgets[i], op.amounts[i], at = unpack_fields(RECORD_LINE, op.lines, at)
    local copy = budgets[KEYS[first + i]]
    op.copies[i] = copy or false
    if copy == nil then op.cold = true elseif not copy then op.readable = false end
  end
  return verb, first + op.count + 1
end

local function asks(option)
  return op.options >= option and floor(op.options / option) % 2 == 1
end

-- Which of the operation's lines is on this budget; nil when none: the caller must name every budget a record holds.
local function line_of(budget)
  for i = 1, op.count do
    if op.budgets[i] == budget then return i end
  end
end

-- Whether the call names every budget the record holds.
local function covers(record)
  for _, budget in ipairs(record.budgets) do
    if not line_of(budget) then return false end
  end
  return true
end

-- Due counts as expired, whoever swept; so does a hold that no budget of this life counts.
local function is_due(record)
  return record.state == PENDING and (now >= record.expires_at or record.epoch ~= epoch_number)
end

local function answer(status, tail, due)
  local account = op.copies[1]
  if not account then return pack('>BBBi8i8i8c0', status, 0, 0, 0, 0, 0, tail or '') end
  local overdue, suspended = due and 1 or 0, account.suspended and 1 or 0
  if not tail then return pack('>BBBi8i8i8', status, overdue, suspended, account.granted, account.spent, account.held) end
  return pack('>BBBi8i8i8c0', status, overdue, suspended, account.granted, account.spent, account.held, tail)
end

-- A record for an id nobody reserved, holding nothing on the first `count` lines of the operation.
local function blank_record(count)
  local record = {
    state = PENDING, flags = 0, epoch = epoch_number, fingerprint = NO_FINGERPRINT, reserved_at = now, expires_at = now,
    progress = 0, model = op.model, metadata = op.metadata, budgets = {}, amounts = {}, lines = '',
    settle_fingerprint = NO_FINGERPRINT, charged_by_expiry = 0, charged = 0, finished_at = now, entry_count = 0,
    entries = '',
  }
  for i = 1, count do record.budgets[i], record.amounts[i] = op.budgets[i], 0 end
  record.lines = pack_lines(record.budgets, record.amounts)
  return record
end
