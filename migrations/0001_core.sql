-- The core: accounts, grants, the ledger, and the life of the partitions.
--
-- Tokens are whole LLM tokens. Totals and sums stay below 2^53 = 9007199254740992, the last integer a Lua number
-- holds exactly; one operation carries at most 10^12.

CREATE TABLE user_accounts (
    id               uuid        PRIMARY KEY,
    email            text        NOT NULL,
    external_id      text,
    total_tokens     bigint      NOT NULL DEFAULT 0,
    used_tokens      bigint      NOT NULL DEFAULT 0,
    remaining_tokens bigint      NOT NULL GENERATED ALWAYS AS (total_tokens - used_tokens) STORED,
    alert_threshold  numeric     NOT NULL DEFAULT 0.8,
    status           text        NOT NULL DEFAULT 'active',
    locale           text,
    time_zone        text,
    -- Counts every change that must reach Redis: grants, policy, suspension.
    version          bigint      NOT NULL DEFAULT 1,
    -- The newest version that Redis is known to have.
    synced_version   bigint      NOT NULL DEFAULT 0,
    policy_version   bigint      NOT NULL DEFAULT 1,
    -- The newest epoch in which this account was handed to Redis.
    loaded_epoch     bigint      NOT NULL DEFAULT 0,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),

    -- The nil id stands for "before all others" in keyset pages.
    CONSTRAINT user_accounts_id CHECK (id <> '00000000-0000-0000-0000-000000000000'),
    -- An address has a sane length, and an external id is any UTF-8 text of 1 to 255 bytes.
    CONSTRAINT user_accounts_email_length CHECK (octet_length(email) BETWEEN 3 AND 320),
    CONSTRAINT user_accounts_external_id_length CHECK (octet_length(external_id) BETWEEN 1 AND 255),
    -- What was granted is never negative and always exact in Lua.
    CONSTRAINT user_accounts_total_range CHECK (total_tokens >= 0 AND total_tokens < 9007199254740992),
    -- What was used is never negative and always exact in Lua. It may pass the total: an overage is charged in full.
    CONSTRAINT user_accounts_used_range CHECK (used_tokens >= 0 AND used_tokens < 9007199254740992),
    CONSTRAINT user_accounts_alert_threshold_range CHECK (alert_threshold > 0 AND alert_threshold <= 1),
    CONSTRAINT user_accounts_status CHECK (status IN ('active', 'suspended')),
    -- Redis is never ahead of Postgres.
    CONSTRAINT user_accounts_versions CHECK (synced_version >= 0 AND synced_version <= version AND policy_version >= 1),
    CONSTRAINT user_accounts_loaded_epoch CHECK (loaded_epoch >= 0)
-- Every flush changes used_tokens, and no index holds it: with room on the page such an update touches no index.
) WITH (fillfactor = 80);

-- One account per address, however it is written; also finds an account by address.
CREATE UNIQUE INDEX user_accounts_email_key ON user_accounts (lower(email));

-- One account per external id; also finds an account by it.
CREATE UNIQUE INDEX user_accounts_external_id_key ON user_accounts (external_id) WHERE external_id IS NOT NULL;

-- Serves the sync worker: the accounts whose state Redis does not have yet, normally none.
CREATE INDEX user_accounts_unsynced ON user_accounts (id) WHERE synced_version < version;

-- Immutable, signed changes of total_tokens.
CREATE TABLE grants (
    id              uuid        PRIMARY KEY,
    user_id         uuid        NOT NULL REFERENCES user_accounts (id),
    kind            text        NOT NULL,
    tokens          bigint      NOT NULL,
    idempotency_key text        NOT NULL,
    reason          text,
    created_at      timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT grants_kind CHECK (kind IN ('purchase', 'bonus', 'renewal', 'adjustment')),
    -- A grant changes something, by no more than one operation may carry; only an adjustment takes away.
    CONSTRAINT grants_tokens_range CHECK (tokens <> 0 AND tokens BETWEEN -1000000000000 AND 1000000000000),
    CONSTRAINT grants_sign CHECK (tokens > 0 OR kind = 'adjustment'),
    CONSTRAINT grants_key_length CHECK (octet_length(idempotency_key) BETWEEN 1 AND 255),
    CONSTRAINT grants_reason_length CHECK (octet_length(reason) <= 1000),
    -- A repeated call grants once; also finds the first answer.
    CONSTRAINT grants_once UNIQUE (user_id, idempotency_key)
);

-- Serves the list of a user's grants, newest first (ids are time-ordered).
CREATE INDEX grants_of_user ON grants (user_id, id DESC);

-- The ledger: one row per settled transaction.
CREATE TABLE token_transactions (
    -- UUIDv5 of user, kind and reservation: the same on every path to the ledger.
    id              uuid        PRIMARY KEY,
    user_id         uuid        NOT NULL REFERENCES user_accounts (id),
    reservation_id  text        NOT NULL,
    kind            text        NOT NULL,
    tokens_used     bigint      NOT NULL,
    model_used      text,
    request_id      text,
    input_tokens    bigint,
    output_tokens   bigint,
    cached_tokens   bigint,
    cost_usd        numeric(20, 9),
    -- Bits: 1 overage, 2 estimated, 4 late, 8 recovered.
    flags           smallint    NOT NULL DEFAULT 0,
    -- As the caller sent it and never looked into: json, since jsonb refuses valid JSON such as "\u0000" or 1e999999,
    -- and no usage may go unbilled for the text that travels with it.
    metadata        json,
    -- By the clock of Redis.
    "timestamp"     timestamptz NOT NULL,
    outbox_sequence bigint      NOT NULL,
    outbox_nonce    bigint      NOT NULL,
    partition       smallint    NOT NULL,

    CONSTRAINT token_transactions_kind CHECK (kind IN ('settle', 'debit', 'expiry', 'correction')),
    -- Only a correction gives back.
    CONSTRAINT token_transactions_tokens_range CHECK (
        tokens_used BETWEEN -1000000000000 AND 1000000000000 AND (tokens_used >= 0 OR kind = 'correction')
    ),
    CONSTRAINT token_transactions_parts_range CHECK (input_tokens >= 0 AND output_tokens >= 0 AND cached_tokens >= 0),
    CONSTRAINT token_transactions_outbox_range CHECK (outbox_sequence >= 0 AND outbox_nonce >= 0),
    -- Exactly once: the flusher, the witnesses, recovery and every repeat of them meet here. Also finds what the
    -- ledger knows of a reservation.
    CONSTRAINT token_transactions_once UNIQUE (user_id, reservation_id, kind)
);

-- Serves a user's history, newest first, in keyset pages.
CREATE INDEX token_transactions_history ON token_transactions (user_id, "timestamp" DESC, id);

-- One row per partition: its identity (epoch and run id of the Redis master), and the lock that every booking holds.
CREATE TABLE partitions (
    id                smallint    PRIMARY KEY,
    epoch             bigint      NOT NULL DEFAULT 0,
    state             text        NOT NULL DEFAULT 'recovering',
    -- Of the recovery that runs; after step 2 the witnesses are too late.
    step              smallint    NOT NULL DEFAULT 0,
    -- Of the Redis master that the partition was last opened on.
    run_id            text,
    -- Highest count of mutations and of outbox entries known to have been given out.
    high_water        bigint      NOT NULL DEFAULT 0,
    outbox_high_water bigint      NOT NULL DEFAULT 0,
    updated_at        timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT partitions_id CHECK (id BETWEEN 0 AND 1023),
    CONSTRAINT partitions_epoch CHECK (epoch >= 0),
    CONSTRAINT partitions_state CHECK (state IN ('open', 'recovering')),
    CONSTRAINT partitions_step CHECK (step BETWEEN 0 AND 7),
    -- A gate is open only over connections to one server, so that one has to be named.
    CONSTRAINT partitions_open_on_a_server CHECK (state <> 'open' OR run_id IS NOT NULL),
    CONSTRAINT partitions_high_water CHECK (
        high_water >= 0 AND high_water < 9007199254740992
        AND outbox_high_water >= 0 AND outbox_high_water < 9007199254740992
    )
-- Every flush changes its row.
) WITH (fillfactor = 50);

-- The running processes.
CREATE TABLE replicas (
    id         uuid        PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now()
);

-- What each replica has seen of each partition.
CREATE TABLE replica_reports (
    replica_id  uuid        NOT NULL REFERENCES replicas (id) ON DELETE CASCADE,
    partition   smallint    NOT NULL,
    -- The newest epoch it has served.
    epoch       bigint      NOT NULL DEFAULT 0,
    -- Highest count of mutations it has seen.
    high_water  bigint      NOT NULL DEFAULT 0,
    -- The newest recovery for which its whole witness ring is in the ledger.
    ring_epoch  bigint      NOT NULL DEFAULT 0,
    reported_at timestamptz NOT NULL DEFAULT now(),

    PRIMARY KEY (replica_id, partition),
    CONSTRAINT replica_reports_range CHECK (
        epoch >= 0 AND ring_epoch >= 0 AND high_water >= 0 AND high_water < 9007199254740992
    )
);

-- Serves recovery: what is known of one partition, and who has written its ring.
CREATE INDEX replica_reports_of_partition ON replica_reports (partition);

-- Outbox entries that the ledger does not take, for an operator and the reconciler.
CREATE TABLE dead_letters (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partition       smallint    NOT NULL,
    outbox_sequence bigint      NOT NULL,
    outbox_nonce    bigint      NOT NULL,
    -- No foreign key: a user that is gone is one of the reasons.
    user_id         uuid        NOT NULL,
    reservation_id  text        NOT NULL,
    kind            text        NOT NULL,
    -- What Redis counts and the ledger does not.
    tokens          bigint      NOT NULL,
    -- The epoch in which Redis counts it; absent when recovery met it, since budgets are loaded anew after that.
    spend_epoch     bigint,
    entry           jsonb       NOT NULL,
    reason          text        NOT NULL,
    detail          text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    resolved_at     timestamptz,

    CONSTRAINT dead_letters_reason CHECK (
        reason IN ('late_replay', 'id_reused', 'after_settle', 'converted', 'refused')
    ),
    -- A repeated flush buries an entry once; also answers whether an outbox id is already here.
    CONSTRAINT dead_letters_once UNIQUE (partition, outbox_sequence, outbox_nonce)
);

-- Serves the count and the list of what waits for an operator.
CREATE INDEX dead_letters_unresolved ON dead_letters (id) WHERE resolved_at IS NULL;
