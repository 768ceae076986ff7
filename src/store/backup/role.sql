-- As in migrations/0060_isolation.sql, which a restored database has behind it.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cota_api') THEN
        CREATE ROLE cota_api NOLOGIN NOSUPERUSER NOBYPASSRLS;
        EXECUTE format('GRANT cota_api TO %I', current_user);
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the role cota_api is missing: let an administrator run CREATE ROLE cota_api NOLOGIN';
END
$$
