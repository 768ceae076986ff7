-- Reads head and operations, counts them, then decides and writes operation by operation.
local verbs = {reserve, settle, debit, release, extend, expire}

local function run(op)
  local bytes = redis.call('GET', op.key)
  local record = nil
  if bytes then
    -- Nothing of this operation is written yet: a record that cannot be read ends it, not the batch.
    local readable, unpacked = pcall(unpack_record, bytes)
    record = readable and unpacked or nil
    if not record or not covers(op, record) then return answer(UNREADABLE, op) end
  end
  -- Giving back to a budget nobody has loaded needs no budget, so a sweep does not load idle accounts.
  if op.verb ~= 6 and any_cold(op) then return answer(COLD, op) end
  return verbs[op.verb](op, record, bytes)
end

-- Whether this answer is none yet: its caller resolves it and runs the operation again, and until then nothing that
-- follows it in a chain may run.
local function is_open(packed)
  local status, due = string.byte(packed, 1, 2)
  return status == COLD or status == STALE or status == UNKNOWN or status == HELD_BACK or (status == DENIED and due == 1)
end

local meta = redis.call('HMGET', META, 'st', 'ep', 'sq', 'ri', 'oq', 'ra')
local refusal = check_head(meta, epoch, run_id, high_water)
if refusal then return refusal end

local operations, first_key = {}, 4
for i = FIRST_OPERATION, #ARGV do
  local op, following = unpack_operation(ARGV[i], first_key)
  if not op or not verbs[op.verb] then return redis.error_reply('ERR apply: malformed operation') end
  operations[#operations + 1] = op
  first_key = following
end
if first_key ~= #KEYS + 1 then return redis.error_reply('ERR apply: keys and operations differ') end

now, epoch_number, recovered_at = read_clock(), tonumber(epoch), tonumber(meta[6])
local sq, oq = tonumber(meta[3]) + #operations, tonumber(meta[5])
-- The first write. Every operation owns one position in the outbox, used or not: at most one entry comes of each.
redis.call('HSET', META, 'sq', sq, 'oq', oq + #operations)

local reply = {0, sq, now, nonce}
for i, op in ipairs(operations) do
  next_oq = oq + i
  if op.follows and i > 1 and is_open(reply[i + 3]) then
    reply[i + 4] = answer(HELD_BACK, op)
  else
    reply[i + 4] = run(op)
  end
end
return reply
