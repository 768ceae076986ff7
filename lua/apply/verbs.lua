-- The verbs, a file each, and `decide`, which run.lua adds.
--
-- They are made inside a function of their own, which run.lua ends: Redis runs a script from its top in every call, so
-- its functions are made in every call, and names of an enclosing function are found at once then, while locals of
-- the function that is running are searched for one by one.
local function make_decide()
local OK, REPLAY, MISMATCH, FINISHED, DENIED, SUSPENDED, STALE = 1, 2, 3, 4, 5, 6, 7
local COLD, FULL, UNKNOWN, RELEASED_ALREADY, GONE, RANGE, UNREADABLE, HELD_BACK = 8, 9, 10, 11, 12, 13, 14, 15
local USAGE_UNKNOWN, NO_ROW, WITNESSED, FOLLOWS = 1, 2, 4, 8
local OVERAGE, ESTIMATED, LATE, RECOVERED = 1, 2, 4, 8
local KIND_SETTLE, KIND_DEBIT, KIND_EXPIRY, KIND_CORRECTION = 1, 2, 3, 4
