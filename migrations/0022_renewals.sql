-- Auto-renewal: tokens added by themselves when few are left, so often a month and no more.

-- What each user's operator has set; no row is no renewal.
CREATE TABLE auto_renewals (
    user_id      uuid        PRIMARY KEY REFERENCES user_accounts (id),
    enabled      boolean     NOT NULL,
    -- Due when what is left is at or below this share of the total.
    threshold    numeric     NOT NULL,
    tokens       bigint      NOT NULL,
    -- In a calendar month in the user's time zone.
    max_renewals integer     NOT NULL,
    mode         text        NOT NULL,
    -- Counts the changes through the API.
    version      bigint      NOT NULL DEFAULT 1,
    -- When the renewer looks at the account: now once a flush has made it due, later where only time helps (the next
    -- month, the end of a request). Absent while there is nothing to do; a flush sets it only then.
    check_at     timestamptz,
    -- The month in which it was told that no renewal is left.
    capped_month text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT auto_renewals_threshold_range CHECK (threshold > 0 AND threshold < 1),
    CONSTRAINT auto_renewals_tokens_range CHECK (tokens BETWEEN 1 AND 1000000000000),
    CONSTRAINT auto_renewals_max_range CHECK (max_renewals BETWEEN 0 AND 100),
    CONSTRAINT auto_renewals_mode CHECK (mode IN ('immediate', 'on_payment'))
);

-- Serves the renewer: the accounts to look at by now.
CREATE INDEX auto_renewals_to_check ON auto_renewals (check_at) WHERE check_at IS NOT NULL;

-- Each renewal, and what became of it.
CREATE TABLE renewals (
    id           uuid        PRIMARY KEY,
    user_id      uuid        NOT NULL REFERENCES user_accounts (id),
    mode         text        NOT NULL,
    state        text        NOT NULL,
    tokens       bigint      NOT NULL,
    -- The numbers that made it due.
    used_tokens  bigint      NOT NULL,
    total_tokens bigint      NOT NULL,
    -- The calendar month it counts in, in the user's time zone: that of the grant once there is one.
    month        text        NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    -- A request that is not paid by then is over.
    expires_at   timestamptz,
    finished_at  timestamptz,
    grant_id     uuid        REFERENCES grants (id),

    CONSTRAINT renewals_mode CHECK (mode IN ('immediate', 'on_payment')),
    CONSTRAINT renewals_state CHECK (state IN ('pending', 'granted', 'cancelled', 'expired')),
    CONSTRAINT renewals_tokens_range CHECK (tokens BETWEEN 1 AND 1000000000000),
    CONSTRAINT renewals_month CHECK (month ~ '^[0-9]{4}-[0-9]{2}$'),
    CONSTRAINT renewals_finished CHECK ((state = 'pending') = (finished_at IS NULL)),
    CONSTRAINT renewals_expire CHECK (state <> 'pending' OR expires_at IS NOT NULL),
    -- Granted means that there is a grant, and only that.
    CONSTRAINT renewals_granted CHECK ((state = 'granted') = (grant_id IS NOT NULL)),
    CONSTRAINT renewals_grant_once UNIQUE (grant_id)
);

-- At most one request waits for its payment.
CREATE UNIQUE INDEX renewals_pending ON renewals (user_id) WHERE state = 'pending';

-- Serves the cap: what counts in a month.
CREATE INDEX renewals_counted ON renewals (user_id, month) WHERE state = 'granted';

-- Serves the list of a user's renewals, newest first (ids are time-ordered).
CREATE INDEX renewals_of_user ON renewals (user_id, id DESC);
