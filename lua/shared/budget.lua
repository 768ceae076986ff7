-- One budget: the packed string `{q}:b:<owner><code>`, big-endian.
--
--   u8 format (1) · u8 1 when the owner is suspended · u32 epoch it was loaded in
--   i64 granted or limit · i64 its version · i64 policy version of the owner · i64 spend · i64 held
--
-- available = granted - spend - held, derived, never stored. One string, and not a hash, because a batch then reads its
-- budgets and records with one command and writes them with one.
local BUDGET = '>BBI4i8i8i8i8i8'

local function pack_budget(b)
  return pack(BUDGET, 1, b.suspended and 1 or 0, b.epoch, b.granted, b.version, b.policy, b.spent, b.held)
end

-- The budget in a packed string: nil when it is absent or of another life (COLD); false when its format is not ours:
-- such a budget is left alone, never guessed.
local function unpack_budget(bytes, epoch)
  if not bytes then return nil end
  if byte_of(bytes, 1) ~= 1 then return false end
  local _, suspended, loaded, granted, version, policy, spent, held = unpack_fields(BUDGET, bytes)
  if loaded ~= epoch then return nil end
  -- Seven names and `changed` (apply): a table of eight costs half of one of nine.
  return {
    epoch = loaded, suspended = suspended == 1, granted = granted, version = version, policy = policy, spent = spent,
    held = held,
  }
end
