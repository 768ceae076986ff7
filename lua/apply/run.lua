-- Decides one operation; then the call itself: reads head and records, decides operation by operation, writes.
local verbs = {reserve, settle, debit, release, extend, expire}

-- Whether this answer is none yet: its caller resolves it and runs the operation again, and until then nothing that
-- follows it in a chain may run.
local function is_open(packed)
  local status, due = byte_of(packed, 1, 2)
  return status == COLD or status == STALE or status == UNKNOWN or status == HELD_BACK or (status == DENIED and due == 1)
end

-- `before` is the answer to the operation before this one, nil for the first.
local function decide(number, bytes, before)
  if before and asks(FOLLOWS) and is_open(before) then return answer(HELD_BACK) end
  if not op.readable then return answer(UNREADABLE) end
  local verb = verbs[number]
  local record = nil
  if bytes then
    -- A record that cannot be read ends its operation, not the batch.
    local readable, unpacked = pcall(unpack_record, bytes)
    record = readable and unpacked or nil
    if not record or not covers(record) then return answer(UNREADABLE) end
  end
  -- Giving back to a budget nobody has loaded needs no budget, so a sweep does not load idle accounts.
  if op.cold and verb ~= expire then return answer(COLD) end
  return verb(record, bytes)
end

return decide
end

-- The keys to read: the record of each operation, then each budget that any of them names, once.
local function keys_to_read()
  local keys, named, at = {}, {}, FIRST_KEY
  for i = 1, operations do
    local lines = byte_of(ARGV[FIRST_OPERATION - 1 + i], 3)
    if not lines or not KEYS[at + lines] then return nil end
    keys[i] = KEYS[at]
    for line = at + 1, at + lines do named[KEYS[line]] = true end
    at = at + 1 + lines
  end
  if at ~= #KEYS + 1 then return nil end
  for budget in pairs(named) do keys[#keys + 1] = budget end
  return keys
end

-- What is stored behind the keys; the budgets go into their copies.
local function read_all(keys)
  local stored = call('MGET', unpack(keys))
  for i = operations + 1, #keys do budgets[keys[i]] = unpack_budget(stored[i], epoch_number) end
  return stored
end

local meta = call('HMGET', META, 'st', 'ep', 'sq', 'ri', 'oq')
local refusal = check_head(meta, epoch, run_id, high_water)
if refusal then return refusal end
local keys = keys_to_read()
if not keys then return redis.error_reply('ERR apply: keys and operations differ') end

now, epoch_number = read_clock(), tonumber(epoch)
local stored = read_all(keys)
-- Every operation owns one position in the outbox, used or not: at most one entry comes of each.
local decide, sq, oq, first = make_decide(), tonumber(meta[3]) + operations, tonumber(meta[5]), FIRST_KEY
local reply = {0, sq, now, nonce}
for i = 1, operations do
  next_oq = oq + i
  local verb, following = read_operation(ARGV[FIRST_OPERATION - 1 + i], first)
  if not verb then return redis.error_reply('ERR apply: malformed operation') end
  first = following
  reply[4 + i] = decide(verb, records[op.key] or stored[i], i > 1 and reply[3 + i] or nil)
end
write_all(sq, oq + operations)
return reply
