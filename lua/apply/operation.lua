-- Reads the operations, and what all verbs share.
local OPERATION = '>BBc16I8I6I8I8c8Bc0Bc0I2c0I2c0B'

local function unpack_operation(bytes, first_key)
  local op = {lines = {}}
  local options, lines, at
  op.verb, options, op.account, op.tokens, op.ttl, op.second, op.policy, op.fingerprint, op.rid, op.model, op.metadata,
    op.facts, lines, at = struct.unpack(OPERATION, bytes)
  op.usage_unknown = options % 2 == 1
  op.no_row = math.floor(options / NO_ROW) % 2 == 1
  op.witnessed = math.floor(options / WITNESSED) % 2 == 1
  op.follows = options >= FOLLOWS
  op.key = KEYS[first_key]
  for i = 1, lines do
    local line = {key = KEYS[first_key + i]}
    line.budget, line.amount, at = struct.unpack('>Bc0I6', bytes, at)
    op.lines[i] = line
  end
  if lines == 0 or op.tokens > MAX_OPERATION or op.second > MAX_OPERATION then return nil end
  return op, first_key + 1 + lines
end

local now, epoch_number, next_oq, recovered_at

-- Due counts as expired, whoever swept; so does a hold that no budget of this life counts.
local function is_due(record)
  return record.state == PENDING and (now >= record.expires_at or record.epoch ~= epoch_number)
end

local function anything_due()
  local first = redis.call('ZRANGE', EXPIRY, 0, 0, 'WITHSCORES')
  return first[2] ~= nil and tonumber(first[2]) <= now
end

local function answer(status, op, tail, due)
  local b = read_budget(op.lines[1].key, epoch)
  if not b then return struct.pack('>BBBi8i8i8', status, 0, 0, 0, 0, 0) .. (tail or '') end
  return struct.pack('>BBBi8i8i8', status, due and 1 or 0, b.suspended and 1 or 0, b.granted, b.spent, b.held)
    .. (tail or '')
end

-- The operation's line on a budget of the record, or nil: the caller must name every budget a record holds.
local function line_of(op, budget)
  for _, line in ipairs(op.lines) do
    if line.budget == budget then return line end
  end
end

-- Whether the call names every budget the record holds.
local function covers(op, record)
  for _, line in ipairs(record.lines) do
    if not line_of(op, line.budget) then return false end
  end
  return true
end

-- Whether a budget the operation names has not been loaded in this life.
local function any_cold(op)
  for _, line in ipairs(op.lines) do
    if not read_budget(line.key, epoch) then return true end
  end
  return false
end

-- Gives back by the lines in the record, never by what the caller says; a hold of another life is not counted
-- anywhere, and an absent budget has nothing to take back.
local function give_back(op, record)
  redis.call('ZREM', EXPIRY, op.account .. op.rid)
  if record.epoch ~= epoch_number then return end
  for _, line in ipairs(record.lines) do
    local budget = read_budget(line_of(op, line.budget).key, epoch)
    if budget then hold(budget, -line.amount) end
  end
end

-- What the record's lines spend: the caller's amounts, or with unknown usage what was held; less what an expiry
-- has charged.
local function spend_lines(op, record, charged)
  local lines = {}
  for i, line in ipairs(record and record.lines or op.lines) do
    local target = line_of(op, line.budget)
    local amount = op.usage_unknown and line.amount or target.amount
    lines[i] = {budget = line.budget, key = target.key, amount = amount - charged}
  end
  return lines
end

local function out_of_range(lines)
  for _, line in ipairs(lines) do
    if read_budget(line.key, epoch).spent + line.amount > MAX_TOTAL then return true end
  end
  return false
end

-- Spends the lines and writes the outbox entry in the same instant:
--   u8 format (1) · 16 bytes account · u8+n rid · u8 kind · i64 tokens · u8 flags · u48 at ms · u8+n model
--   u16+n metadata · u16+n facts · u8 lines, each: u8+n budget, i64 amount
local function book(op, record, kind, tokens, lines)
  local parts = {
    struct.pack('>Bc16Bc0Bi8BI6Bc0I2c0I2c0B', 1, op.account, #op.rid, op.rid, kind, tokens, record.flags, now,
      #record.model, record.model, #record.metadata, record.metadata, #op.facts, op.facts, #lines),
  }
  for _, line in ipairs(lines) do
    spend(read_budget(line.key, epoch), line.amount)
    parts[#parts + 1] = struct.pack('>Bc0i8', #line.budget, line.budget, line.amount)
  end
  local id = string.format('%.0f', next_oq) .. '-' .. nonce
  redis.call('XADD', OUTBOX, id, 'd', table.concat(parts))
  record.entries[#record.entries + 1] = {kind = kind, tokens = tokens, id = id}
end

-- No TTL while a record is pending or not yet in Postgres.
local function store(op, record, ttl)
  local bytes = pack_record(record)
  if ttl then
    redis.call('SET', op.key, bytes, 'PX', ttl)
  else
    redis.call('SET', op.key, bytes)
  end
  return bytes
end

-- A record for an id nobody reserved.
local function blank_record(op)
  return {
    state = PENDING, flags = 0, epoch = epoch_number, fingerprint = NO_FINGERPRINT, reserved_at = now, expires_at = now,
    progress = 0, model = op.model, metadata = op.metadata, lines = {}, entries = {},
    settle_fingerprint = NO_FINGERPRINT, charged_by_expiry = 0, charged = 0, finished_at = now,
  }
end
