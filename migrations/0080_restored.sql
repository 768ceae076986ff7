-- Backups: reading them out, and what has to be made up for once Postgres has come back from one.

-- When this partition was found, or put, in a state earlier than what Redis may know; absent once a recovery has compared.
ALTER TABLE partitions ADD COLUMN restored_at timestamptz;

-- pg_dump reads where sequences stand; the service makes backups as its own role.
DO $$
BEGIN
    EXECUTE format('GRANT SELECT ON ALL SEQUENCES IN SCHEMA %I TO cota_api', current_schema());
    EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON SEQUENCES TO cota_api', current_schema());
END
$$;
