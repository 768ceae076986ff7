-- Hours in which a user used more than is ordinary for it, with the numbers that say so.

CREATE TABLE anomalies (
    id               uuid        PRIMARY KEY,
    user_id          uuid        NOT NULL REFERENCES user_accounts (id),
    -- First instant of the hour of the user's clock.
    hour             timestamptz NOT NULL,
    time_zone        text        NOT NULL,
    -- Used in it when this was found; the hour may have gone on.
    tokens           bigint      NOT NULL,
    threshold_tokens bigint      NOT NULL,
    median_tokens    bigint      NOT NULL,
    mad_tokens       bigint      NOT NULL,
    typical_tokens   bigint      NOT NULL,
    samples          integer     NOT NULL,
    detected_at      timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT anomalies_above CHECK (tokens > threshold_tokens),
    CONSTRAINT anomalies_samples CHECK (samples > 0),
    -- An hour is flagged once, however many replicas look and however often.
    CONSTRAINT anomalies_once UNIQUE (user_id, hour)
);

-- Serves the list of a user's anomalies, newest first (ids are time-ordered). That of all users is by the key itself.
CREATE INDEX anomalies_of_user ON anomalies (user_id, id DESC);
