# Run once, by the image, when the database is made: the user of Grafana's data source, who may read and nothing else.
# Needs psql's variables (PGHOST …), POSTGRES_USER, POSTGRES_DB and GRAFANA_POSTGRES_PASSWORD.
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set=password="$GRAFANA_POSTGRES_PASSWORD" --set=owner="$POSTGRES_USER" <<'END'
CREATE ROLE grafana LOGIN CONNECTION LIMIT 20 PASSWORD :'password';
ALTER ROLE grafana SET default_transaction_read_only = on;
ALTER ROLE grafana SET statement_timeout = '10s';
GRANT USAGE ON SCHEMA public TO grafana;
-- It is for operators, who see every user; row-level security is for the API.
ALTER ROLE grafana BYPASSRLS;
-- The tables are made later, by `cota migrate`.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT SELECT ON TABLES TO grafana;
END
