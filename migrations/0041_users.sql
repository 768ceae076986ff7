-- Users are deleted by being made nobody: their ledger stays, whatever tells who they were goes.

ALTER TABLE user_accounts
    ADD COLUMN deleted_at timestamptz,
    -- When the last of what was to go had gone; looked for again until no call of the user can be under way.
    ADD COLUMN erased_at  timestamptz,
    DROP CONSTRAINT user_accounts_status,
    DROP CONSTRAINT user_accounts_has_email,
    ADD CONSTRAINT user_accounts_status CHECK (status IN ('active', 'suspended', 'deleted')),
    -- Every account has an address, in one form or the other, until it is nobody's.
    ADD CONSTRAINT user_accounts_has_email CHECK (
        status = 'deleted' OR email IS NOT NULL OR email_sealed IS NOT NULL
    ),
    ADD CONSTRAINT user_accounts_deleted CHECK (
        (status = 'deleted') = (deleted_at IS NOT NULL) AND (erased_at IS NULL OR deleted_at IS NOT NULL)
    ),
    ADD CONSTRAINT user_accounts_nobody CHECK (
        status <> 'deleted'
        OR num_nonnulls(email, email_sealed, email_index, external_id, locale, time_zone) = 0
    );

-- Serves the erasure: accounts of which something may be left, normally none.
CREATE INDEX user_accounts_to_erase ON user_accounts (id) WHERE status = 'deleted' AND erased_at IS NULL;

-- Serves the sealing of addresses that are still plain, normally none.
CREATE INDEX user_accounts_plain_email ON user_accounts (id) WHERE email IS NOT NULL;
