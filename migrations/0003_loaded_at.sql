-- When an account was handed to Redis, so that every replica tells one that is on its way from one that was lost.
--
-- Absent: before this was noted, hence long ago.
ALTER TABLE user_accounts ADD COLUMN loaded_at timestamptz;
