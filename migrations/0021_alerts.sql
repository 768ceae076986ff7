-- Alerts: at which shares of the total a user is told, how far usage has come, and what was told.

-- The thresholds stand in the account's row, the warning's in alert_threshold: whoever moves a level holds that row,
-- and a flush that moves none reads nothing else.
ALTER TABLE user_accounts
    ADD COLUMN alert_critical numeric  NOT NULL DEFAULT 0.95,
    -- How many levels are reached and told of: 0 none, 1 warning, 2 critical, 3 blocked.
    ADD COLUMN alert_level    smallint NOT NULL DEFAULT 0;

UPDATE user_accounts SET alert_critical = alert_threshold WHERE alert_threshold > alert_critical;

ALTER TABLE user_accounts
    ADD CONSTRAINT user_accounts_alert_critical_range CHECK (alert_critical > 0 AND alert_critical <= 1),
    -- Levels are reached in order.
    ADD CONSTRAINT user_accounts_alert_order CHECK (alert_threshold <= alert_critical),
    ADD CONSTRAINT user_accounts_alert_level CHECK (alert_level BETWEEN 0 AND 3);

CREATE TABLE user_alerts (
    id           uuid        PRIMARY KEY,
    user_id      uuid        NOT NULL REFERENCES user_accounts (id),
    level        text        NOT NULL,
    -- The share of the total at which the level began, and the numbers that reached it.
    threshold    numeric     NOT NULL,
    used_tokens  bigint      NOT NULL,
    total_tokens bigint      NOT NULL,
    fired_at     timestamptz NOT NULL DEFAULT now(),
    resolved_at  timestamptz,
    -- What led below the level again.
    resolved_by  text,

    CONSTRAINT user_alerts_level CHECK (level IN ('warning', 'critical', 'blocked')),
    CONSTRAINT user_alerts_threshold_range CHECK (threshold > 0 AND threshold <= 1),
    CONSTRAINT user_alerts_resolved CHECK ((resolved_at IS NULL) = (resolved_by IS NULL)),
    CONSTRAINT user_alerts_resolved_by CHECK (
        resolved_by IN ('purchase', 'bonus', 'renewal', 'adjustment', 'correction', 'thresholds')
    )
);

-- A level is told of once until usage is below it again; also finds what is to be resolved.
CREATE UNIQUE INDEX user_alerts_open ON user_alerts (user_id, level) WHERE resolved_at IS NULL;

-- Serves the list of a user's alerts, newest first (ids are time-ordered).
CREATE INDEX user_alerts_of_user ON user_alerts (user_id, id DESC);
