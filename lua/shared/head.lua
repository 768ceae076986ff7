-- Head of every script that serves under a gate: is this the partition's life that the caller means?
--
-- Returns nil when it is, else the reply: {1} UNINIT · {2, epoch} CLOSED · {3, epoch} EPOCH · {4, sq} ROLLBACK.
-- A rollback is the proof that Redis lost writes: it counts fewer mutations than the caller has seen.
local function check_head(meta, epoch, run_id, high_water)
  local state, current, sq, run = meta[1], meta[2], meta[3], meta[4]
  if not state then return {1} end
  if state ~= 'open' then return {2, tonumber(current) or 0} end
  if current ~= epoch or run ~= run_id then return {3, tonumber(current)} end
  if tonumber(sq) < high_water then return {4, tonumber(sq)} end
  return nil
end

-- Unix milliseconds. The only clock there is; read before the first write.
local function read_clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
