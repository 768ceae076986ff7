-- Monthly reports, by the calendar of each user.

-- The last month that is told, by its first day: its report is written, or it ended before the account was. New accounts
-- have nothing to tell of the months before theirs.
ALTER TABLE user_accounts
    ADD COLUMN reported_month date NOT NULL DEFAULT (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month');

UPDATE user_accounts
SET reported_month = date_trunc('month', created_at AT TIME ZONE 'UTC') - interval '1 month';

-- Serves the search for months that have ended, zone by zone, and the list of all zones.
CREATE INDEX user_accounts_reports ON user_accounts ((coalesce(time_zone, 'UTC')), reported_month, id);

-- Written once, when the month was over and the outbox had passed its end; never changed.
CREATE TABLE monthly_reports (
    user_id        uuid           NOT NULL REFERENCES user_accounts (id),
    -- Its first day.
    month          date           NOT NULL,
    time_zone      text           NOT NULL,
    -- One report begins where the one before ended, so that every instant is in one, also when the zone has changed.
    period_start   timestamptz    NOT NULL,
    period_end     timestamptz    NOT NULL,
    -- What the ledger had of the period when this was written.
    tokens         bigint         NOT NULL,
    requests       bigint         NOT NULL,
    input_tokens   bigint         NOT NULL,
    output_tokens  bigint         NOT NULL,
    cached_tokens  bigint         NOT NULL,
    overages       bigint         NOT NULL,
    cost_usd       numeric(20, 9),
    -- What had arrived of earlier periods since their reports were written.
    late_tokens    bigint         NOT NULL,
    -- Signed sums of the period's grants.
    granted_tokens bigint         NOT NULL,
    -- All that was granted, and all that was used with what came late, up to the end of the period.
    closing_total  bigint         NOT NULL,
    closing_used   bigint         NOT NULL,
    -- [{"model", "tokens", "requests", "input_tokens", "output_tokens", "cached_tokens", "overages"}], most tokens first.
    models         jsonb          NOT NULL,
    -- [{"day", "tokens", "requests"}], days on which nothing was used left out.
    days           jsonb          NOT NULL,
    -- [{"kind", "tokens", "grants"}]
    grants         jsonb          NOT NULL,
    produced_at    timestamptz    NOT NULL DEFAULT now(),

    -- A month is told once. Also serves the list of a user's reports.
    PRIMARY KEY (user_id, month),
    CONSTRAINT monthly_reports_month CHECK (extract(day FROM month) = 1),
    CONSTRAINT monthly_reports_period CHECK (period_start < period_end)
);

-- Serves the report of a month over all users.
CREATE INDEX monthly_reports_of_month ON monthly_reports (month, user_id);
