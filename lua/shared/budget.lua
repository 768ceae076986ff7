-- One budget: the hash `{q}:b:<owner><code>`.
--
--   gt granted or limit · gv its version · sp spend · hd held · ep epoch it was loaded in
--   pv policy version of the owner · su '1' when the owner is suspended
--
-- available = gt - sp - hd, derived, never stored. Read once per call and kept in `budgets`, so that a batch of
-- one account pays for one read.
local budgets = {}

-- The copy of the budget behind a key, or nil when it is absent or of another life (COLD).
local function read_budget(key, epoch)
  local budget = budgets[key]
  if budget == nil then
    local h = call('HMGET', key, 'ep', 'gt', 'sp', 'hd', 'pv', 'su')
    budget = false
    if h[1] == epoch then
      local spent, held = tonumber(h[3]), tonumber(h[4])
      budget = {
        granted = tonumber(h[2]), spent = spent, held = held, policy = tonumber(h[5]), suspended = h[6] == '1',
        stored_spent = spent, stored_held = held,
      }
    end
    budgets[key] = budget
  end
  return budget or nil
end
