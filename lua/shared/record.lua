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
-- Example: a fresh reserve of 100 tokens is 45 bytes plus its model and metadata.
local PENDING, SETTLED, RELEASED, EXPIRED = 1, 2, 3, 4
local NO_FINGERPRINT = '\0\0\0\0\0\0\0\0'
local RECORD_HEAD, RECORD_TAIL = '>BBBI4c8I6I6I6Bc0I2c0B', '>c8I6I6I6B'

local function pack_record(r)
  local parts = {
    struct.pack(RECORD_HEAD, 1, r.state, r.flags, r.epoch, r.fingerprint, r.reserved_at, r.expires_at, r.progress,
      #r.model, r.model, #r.metadata, r.metadata, #r.lines),
  }
  for _, line in ipairs(r.lines) do
    parts[#parts + 1] = struct.pack('>Bc0I6', #line.budget, line.budget, line.amount)
  end
  if r.state ~= PENDING then
    parts[#parts + 1] = struct.pack(RECORD_TAIL, r.settle_fingerprint, r.charged_by_expiry, r.charged, r.finished_at,
      #r.entries)
    for _, entry in ipairs(r.entries) do
      parts[#parts + 1] = struct.pack('>Bi8Bc0', entry.kind, entry.tokens, #entry.id, entry.id)
    end
  end
  return table.concat(parts)
end

-- The record in a packed string, or nil when its format is not ours: such an operation is closed, never guessed.
local function unpack_record(bytes)
  if string.byte(bytes, 1) ~= 1 then return nil end
  local r = {lines = {}, entries = {}, settle_fingerprint = NO_FINGERPRINT, charged_by_expiry = 0, charged = 0,
    finished_at = 0}
  local lines, entries, at, _
  _, r.state, r.flags, r.epoch, r.fingerprint, r.reserved_at, r.expires_at, r.progress, r.model, r.metadata, lines, at =
    struct.unpack(RECORD_HEAD, bytes)
  for i = 1, lines do
    local line = {}
    line.budget, line.amount, at = struct.unpack('>Bc0I6', bytes, at)
    r.lines[i] = line
  end
  if r.state ~= PENDING then
    r.settle_fingerprint, r.charged_by_expiry, r.charged, r.finished_at, entries, at =
      struct.unpack(RECORD_TAIL, bytes, at)
    for i = 1, entries do
      local entry = {}
      entry.kind, entry.tokens, entry.id, at = struct.unpack('>Bi8Bc0', bytes, at)
      r.entries[i] = entry
    end
  end
  return r
end
