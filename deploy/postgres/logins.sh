# Run once, by the image, when the database is made: who else may log in. POSTGRES_USER owns the tables, for `cota migrate`.
# Needs psql's variables (PGHOST …), POSTGRES_USER, POSTGRES_DB, POSTGRES_SERVICE_PASSWORD and GRAFANA_POSTGRES_PASSWORD.
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set=service="$POSTGRES_SERVICE_PASSWORD" --set=grafana="$GRAFANA_POSTGRES_PASSWORD" --set=owner="$POSTGRES_USER" <<'END'
-- The service: what cota_api may, and nothing else (docs/ISOLATION.md). `cota migrate` gives cota_api its rights.
CREATE ROLE cota_api NOLOGIN;
CREATE ROLE cota_service LOGIN PASSWORD :'service' IN ROLE cota_api;

-- Grafana's data source: may read and nothing else. It is for operators, who see every user.
CREATE ROLE grafana LOGIN CONNECTION LIMIT 20 PASSWORD :'grafana';
ALTER ROLE grafana SET default_transaction_read_only = on;
ALTER ROLE grafana SET statement_timeout = '10s';
ALTER ROLE grafana SET cota.scope = 'service';
GRANT USAGE ON SCHEMA public TO grafana;
-- The tables are made later, by `cota migrate`.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT SELECT ON TABLES TO grafana;
END
