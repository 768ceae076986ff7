-- One reservation: the packed string `{q}:r:<account>:<rid>`, big-endian.
--
--   u8 format (1) · u8 state (1 pending, 2 settled, 3 released, 4 expired) · u8 flags of its charge
--   u32 epoch its hold counts in · 8 bytes fingerprint of the reserve (zeros: none) · u48 reserved_at ms
--   u48 expires_at ms · u48 progress tokens · u8+n model · u16+n metadata
--   u8 lines, each: u8+n budget, u48 amount
--   when the state is not pending:
--     8 bytes fingerprint of the settle (zeros: unknown) · u48 tokens charged by its expiry
--     u48 tokens charged in all · u48 finished_at ms
--     u8 outbox entries, each: u8 kind (1 settle, 2 debit, 3 expiry, 4 correction), i64 tokens, u8+n outbox id
--
-- Example: a fresh reserve of 100 tokens is 45 bytes plus its lines, model and metadata.
--
-- Unpacked, `budgets` and `amounts` are its lines, `lines` and `entries` their bytes as they stand in the record:
-- few verbs change any, and copied bytes are cheaper than packed ones.
local PENDING, SETTLED, RELEASED, EXPIRED = 1, 2, 3, 4
local NO_FINGERPRINT = '\0\0\0\0\0\0\0\0'
local RECORD_LINE, RECORD_ENTRY = '>Bc0I6', '>Bi8Bc0'
-- To unpack; and to pack, where c0 means the whole string.
local RECORD_HEAD, RECORD_PENDING = '>BBBI4c8I6I6I6Bc0I2c0B', '>BBBI4c8I6I6I6Bc0I2c0Bc0'
local RECORD_END, RECORD_TAIL = '>c8I6I6I6B', '>c8I6I6I6Bc0'

local function pack_lines(budgets, amounts)
  local lines = ''
  for i, budget in ipairs(budgets) do lines = lines .. pack(RECORD_LINE, #budget, budget, amounts[i]) end
  return lines
end

-- Everything up to the lines, and the lines, which are packed already: all there is of a pending record.
local function pack_head(state, flags, epoch, fingerprint, reserved_at, expires_at, progress, model, metadata, count,
    lines)
  return pack(RECORD_PENDING, 1, state, flags, epoch, fingerprint, reserved_at, expires_at, progress, #model, model,
    #metadata, metadata, count, lines)
end

local function pack_record(r)
  local head = pack_head(r.state, r.flags, r.epoch, r.fingerprint, r.reserved_at, r.expires_at, r.progress, r.model,
    r.metadata, #r.budgets, r.lines)
  if r.state == PENDING then return head end
  return head
    .. pack(RECORD_TAIL, r.settle_fingerprint, r.charged_by_expiry, r.charged, r.finished_at, r.entry_count, r.entries)
end

-- The record in a packed string, or nil when its format is not ours: such an operation is closed, never guessed.
local function unpack_record(bytes)
  if byte_of(bytes, 1) ~= 1 then return nil end
  local _, state, flags, epoch, fingerprint, reserved_at, expires_at, progress, model, metadata, count, at =
    unpack_fields(RECORD_HEAD, bytes)
  local first, budgets, amounts = at, {}, {}
  for i = 1, count do budgets[i], amounts[i], at = unpack_fields(RECORD_LINE, bytes, at) end
  local lines = string.sub(bytes, first, at - 1)
  local settle_fingerprint, charged_by_expiry, charged, finished_at, entry_count, entries =
    NO_FINGERPRINT, 0, 0, 0, 0, ''
  if state ~= PENDING then
    settle_fingerprint, charged_by_expiry, charged, finished_at, entry_count, at =
      unpack_fields(RECORD_END, bytes, at)
    entries = string.sub(bytes, at)
  end
  return {
    state = state, flags = flags, epoch = epoch, fingerprint = fingerprint, reserved_at = reserved_at,
    expires_at = expires_at, progress = progress, model = model, metadata = metadata, budgets = budgets,
    amounts = amounts, lines = lines, settle_fingerprint = settle_fingerprint, charged_by_expiry = charged_by_expiry,
    charged = charged, finished_at = finished_at, entry_count = entry_count, entries = entries,
  }
end
