-- E-mail addresses are sealed (docs/SECRETS.md): `email_sealed` opens for its row alone, `email_index` finds it.

ALTER TABLE user_accounts
    -- Holds an address only until `cota migrate` has sealed it.
    ALTER COLUMN email DROP NOT NULL,
    ADD COLUMN email_sealed bytea,
    -- HMAC-SHA256 of the address in lower case, under the index key.
    ADD COLUMN email_index  bytea,
    -- Every account has an address, in one form or the other.
    ADD CONSTRAINT user_accounts_has_email CHECK (email IS NOT NULL OR email_sealed IS NOT NULL),
    -- What is sealed can be found, and what is found can be opened.
    ADD CONSTRAINT user_accounts_email_pair CHECK ((email_sealed IS NULL) = (email_index IS NULL)),
    ADD CONSTRAINT user_accounts_email_index_length CHECK (octet_length(email_index) = 32);

-- One account per address, however it is written; also finds an account by address.
CREATE UNIQUE INDEX user_accounts_email_index_key ON user_accounts (email_index);

-- The newest migration that the process knows. One without reads and writes plain addresses.
ALTER TABLE replicas ADD COLUMN schema_version bigint;
