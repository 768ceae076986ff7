-- What a user wants to be told, and how. Without a row: everything, by every way.

CREATE TABLE notification_settings (
    user_id          uuid        PRIMARY KEY REFERENCES user_accounts (id),
    email_enabled    boolean     NOT NULL,
    -- Kinds of events that are told by e-mail; NULL for all.
    email_kinds      text[],
    webhooks_enabled boolean     NOT NULL,
    version          bigint      NOT NULL,
    updated_at       timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT notification_settings_kinds CHECK (cardinality(email_kinds) BETWEEN 1 AND 100),
    -- 0 is that of a user without a row.
    CONSTRAINT notification_settings_version CHECK (version >= 1)
);
