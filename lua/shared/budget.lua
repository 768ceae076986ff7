-- One budget: the hash `{q}:b:<owner><code>`.
--
--   gt granted or limit · gv its version · sp spend · hd held · ep epoch it was loaded in
--   pv policy version of the owner · su '1' when the owner is suspended
--
-- available = gt - sp - hd, derived, never stored. Read once per call and kept in `budgets`, so that a batch of
-- one account pays for one read; every write goes to Redis and to the copy.
local budgets = {}

-- The budget behind a key, or nil when it is absent or of another life (COLD).
local function read_budget(key, epoch)
  local budget = budgets[key]
  if budget == nil then
    local h = redis.call('HMGET', key, 'ep', 'gt', 'sp', 'hd', 'pv', 'su')
    budget = false
    if h[1] == epoch then
      budget = {
        key = key, granted = tonumber(h[2]), spent = tonumber(h[3]), held = tonumber(h[4]),
        policy = tonumber(h[5]), suspended = h[6] == '1',
      }
    end
    budgets[key] = budget
  end
  return budget or nil
end

local function hold(budget, amount)
  if amount == 0 then return end
  redis.call('HINCRBY', budget.key, 'hd', amount)
  budget.held = budget.held + amount
end

local function spend(budget, amount)
  if amount == 0 then return end
  redis.call('HINCRBY', budget.key, 'sp', amount)
  budget.spent = budget.spent + amount
end
