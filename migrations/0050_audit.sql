-- The audit log: chains of rows, each of which carries the hash of the one before it (src/store/audit/mod.rs).

-- Where each chain ends. A partition's chain has the partition's number; -1 is the chain of acts.
CREATE TABLE audit_chains (
    chain  smallint PRIMARY KEY,
    number bigint   NOT NULL,
    hash   bytea    NOT NULL,

    CONSTRAINT audit_chains_chain CHECK (chain BETWEEN -1 AND 1023),
    CONSTRAINT audit_chains_number CHECK (number >= 0),
    CONSTRAINT audit_chains_hash_length CHECK (octet_length(hash) = 32)
-- Every flush changes its row.
) WITH (fillfactor = 50);

-- Acts lock this row; the chain of a partition begins with its first batch.
INSERT INTO audit_chains (chain, number, hash) VALUES (-1, 0, decode(repeat('00', 32), 'hex'));

CREATE TABLE audit_log (
    chain      smallint    NOT NULL,
    -- 1, 2, 3 … without a gap.
    number     bigint      NOT NULL,
    -- Hash of the row before; zeros before the first.
    previous   bytea       NOT NULL,
    -- SHA-256 over everything else in the row.
    hash       bytea       NOT NULL,
    at         timestamptz NOT NULL,
    -- Subject of the JWT, or the part of the service that acted by itself.
    actor      text        NOT NULL,
    actor_role text        NOT NULL,
    action     text        NOT NULL,
    -- Whom it is about. No foreign key: a refused call may name a user that does not exist.
    user_id    uuid,
    -- Ids, numbers and names of settings; nothing about a person. json keeps the text as it was hashed.
    data       json        NOT NULL,

    PRIMARY KEY (chain, number),
    CONSTRAINT audit_log_chain CHECK (chain BETWEEN -1 AND 1023),
    CONSTRAINT audit_log_number CHECK (number >= 1),
    CONSTRAINT audit_log_hash_lengths CHECK (octet_length(previous) = 32 AND octet_length(hash) = 32)
);

-- Serves what is on record about a user, newest first. Only acts name one.
CREATE INDEX audit_log_of_user ON audit_log (user_id, number DESC) WHERE user_id IS NOT NULL;

-- Rows are added and never changed, whoever asks.
CREATE FUNCTION audit_log_is_immutable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log takes no %', TG_OP USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER audit_log_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_immutable();

-- Chains go on; they neither end nor begin anew.
CREATE TRIGGER audit_chains_immutable BEFORE DELETE OR TRUNCATE ON audit_chains
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_immutable();

-- Which row of its partition's chain covers the transaction. None for those of a version without chains.
ALTER TABLE token_transactions ADD COLUMN audit_number bigint;

-- Serves the check of a chain's newest rows. Block ranges: numbers grow with the table, and an entry per row would cost
-- every flush.
CREATE INDEX token_transactions_audit ON token_transactions USING brin (audit_number)
    WITH (pages_per_range = 32, autosummarize = on);
