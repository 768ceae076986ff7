-- outbox: the partition's identity and entries of its outbox, in one reading. Flags: no-writes
--
-- KEYS  [1] {q}:m meta hash   [2] {q}:o outbox stream
-- ARGV  [1] most entries to return, 1 … 10000   [2] from where on: '-', the first, or '(' and the id they come after
-- Returns {state, epoch, sq, oq, run id, depth, acked up to, id, payload, id, payload, …}; state is '' when the meta hash
--       is absent; acked up to is the highest id that was ever taken out, '' when there is no outbox. Payloads are packed
--       as in apply's `book`.
-- Invariant: identity and entries belong together, so that entries of another life can be told apart.
if #KEYS ~= 2 or #ARGV ~= 2 then return redis.error_reply('ERR outbox: wrong number of keys or arguments') end
local META, OUTBOX, most, from = KEYS[1], KEYS[2], ARGV[1], ARGV[2]

-- Servers before 7.0 do not tell: then nothing counts as acked.
local function acked_up_to()
  if redis.call('EXISTS', OUTBOX) == 0 then return '' end
  local facts = redis.call('XINFO', 'STREAM', OUTBOX)
  for at = 1, #facts, 2 do
    if facts[at] == 'max-deleted-entry-id' then return facts[at + 1] end
  end
  return ''
end

local m = redis.call('HMGET', META, 'st', 'ep', 'sq', 'oq', 'ri')
local reply = {
  m[1] or '', tonumber(m[2]) or 0, tonumber(m[3]) or 0, tonumber(m[4]) or 0, m[5] or '', redis.call('XLEN', OUTBOX),
  acked_up_to(),
}
for _, entry in ipairs(redis.call('XRANGE', OUTBOX, from, '+', 'COUNT', most)) do
  reply[#reply + 1] = entry[1]
  reply[#reply + 1] = entry[2][2]
end
return reply
