-- What has happened to a user's account and is worth telling: alerts, credits, renewals, reports.
--
-- Written in the SQL transaction of the change itself, so that neither exists without the other. Notifications are made
-- from these rows, and the live stream (`GET …/events`) sends them.

CREATE TABLE user_events (
    -- Every writer holds the account's row, so of one user's events a smaller id was committed first: a reader that
    -- goes on after the last id it saw misses none.
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id       uuid        NOT NULL REFERENCES user_accounts (id),
    kind          text        NOT NULL,
    -- The facts, as a webhook sends them. Ids and numbers, never an address.
    data          jsonb       NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    -- When its notifications were queued.
    fanned_out_at timestamptz,

    CONSTRAINT user_events_kind CHECK (kind ~ '^[a-z]+\.[a-z_]+$'),
    CONSTRAINT user_events_data CHECK (jsonb_typeof(data) = 'object' AND octet_length(data::text) <= 16384)
);

-- Serves the live stream and its resumption.
CREATE INDEX user_events_of_user ON user_events (user_id, id);

-- Serves the notifier: events whose notifications are not queued yet, normally none.
CREATE INDEX user_events_waiting ON user_events (id) WHERE fanned_out_at IS NULL;
