-- Isolation: whoever works on one user's behalf sees and changes that user's rows alone, whatever its SQL says.
--
-- The service acts as the role cota_api, which owns nothing. Row-level security is forced, so the owner is bound as well.
-- Each session or SQL transaction says what it works for:
--   cota.scope = 'service'                        background work and what admins ask for: all rows
--   cota.scope = 'user', cota.user_id = <uuid>    one user's rows
-- and without either it sees no row at all.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cota_api') THEN
        CREATE ROLE cota_api NOLOGIN NOSUPERUSER NOBYPASSRLS;
        -- So that one login can do for both.
        EXECUTE format('GRANT cota_api TO %I', current_user);
    END IF;
EXCEPTION
    -- Another database of the same server made it at the same moment.
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the role cota_api is missing: let an administrator run CREATE ROLE cota_api NOLOGIN';
END
$$;

DO $$
BEGIN
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', current_schema());
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO cota_api', current_schema());
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO cota_api', current_schema());
    EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA %I TO cota_api', current_schema());
    -- For tables of later migrations.
    EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO cota_api',
                   current_schema());
    EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT USAGE ON SEQUENCES TO cota_api', current_schema());
    -- The service looks at the migrations and makes none.
    IF to_regclass('_sqlx_migrations') IS NOT NULL THEN
        REVOKE INSERT, UPDATE, DELETE ON _sqlx_migrations FROM cota_api;
    END IF;
END
$$;

-- Rows of the ledger, grants and the audit log are added and stay. What a person wrote beside them can be erased.
REVOKE UPDATE, DELETE, TRUNCATE ON audit_log, token_transactions, grants FROM cota_api, PUBLIC;
REVOKE DELETE, TRUNCATE ON audit_chains FROM cota_api, PUBLIC;
GRANT UPDATE (metadata) ON token_transactions TO cota_api;
GRANT UPDATE (reason) ON grants TO cota_api;

-- Isolates a table by the column that names its user. Later migrations call it for each table they add.
CREATE FUNCTION cota_isolate(isolated regclass, user_column name DEFAULT 'user_id') RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    -- Sub-selects are evaluated once per statement and not once per row. Of a bare comparison the planner expects that it
    -- leaves one row in 200, and would read and sort a whole table for a page of it; of a coalesce, that it leaves half.
    mine text := format(
        'coalesce('
        '(SELECT current_setting(''cota.scope'', true)) = ''service'''
        ' OR (SELECT current_setting(''cota.scope'', true)) = ''user'''
        ' AND %I = (SELECT nullif(current_setting(''cota.user_id'', true), '''')::uuid), false)', user_column);
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', isolated);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', isolated);
    EXECUTE format('CREATE POLICY cota_own_rows ON %s USING (%s) WITH CHECK (%s)', isolated, mine, mine);
END
$$;

SELECT cota_isolate('user_accounts', 'id');

-- Every table that names a user, whichever migration made it.
SELECT cota_isolate(c.oid::regclass)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND a.attname = 'user_id'
      AND a.attnum > 0 AND NOT a.attisdropped AND NOT c.relrowsecurity
ORDER BY c.relname;
