-- Where a user's events are sent to: endpoints that take webhooks, as the user or an operator has entered them.

CREATE TABLE webhook_endpoints (
    id              uuid        PRIMARY KEY,
    user_id         uuid        NOT NULL REFERENCES user_accounts (id),
    url             text        NOT NULL,
    -- Kinds of events that are sent; NULL for all.
    kinds           text[],
    -- Opened for the moment of signing alone, and shown once, when it is made.
    secret_sealed   bytea       NOT NULL,
    -- The secret before, which goes on signing beside the new one until the receiver has changed over.
    previous_secret_sealed bytea,
    previous_until  timestamptz,
    disabled_at     timestamptz,
    disabled_reason text,
    -- The first failure since the last success, and how many there were.
    failing_since   timestamptz,
    failures        integer     NOT NULL DEFAULT 0,
    -- Nothing is sent before: it asked for a pause, or fails.
    paused_until    timestamptz,
    -- Counts the changes made by its users, not those that sending makes.
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT webhook_endpoints_url CHECK (octet_length(url) BETWEEN 1 AND 2048),
    CONSTRAINT webhook_endpoints_kinds CHECK (cardinality(kinds) BETWEEN 1 AND 100),
    CONSTRAINT webhook_endpoints_previous CHECK ((previous_secret_sealed IS NULL) = (previous_until IS NULL)),
    -- by its user or an operator; it answered 410; it failed for days.
    CONSTRAINT webhook_endpoints_reason CHECK (disabled_reason IN ('asked', 'gone', 'failing')),
    CONSTRAINT webhook_endpoints_disabled CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL)),
    CONSTRAINT webhook_endpoints_failures CHECK (failures >= 0 AND (failing_since IS NULL) = (failures = 0)),
    -- A repeated creation makes no second one, and no event arrives twice at one address. Also serves the list of a
    -- user's endpoints, and the fan-out of an event.
    CONSTRAINT webhook_endpoints_once UNIQUE (user_id, url)
);
