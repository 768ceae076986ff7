//! Whether the sums of usage are those of the ledger.

use sqlx::PgPool;
use uuid::Uuid;

/// The tables of sums, with their column of time and how a row of the ledger gets into it.
pub const TABLES: [(&str, &str, &str); 2] = [
    ("usage_quarters", "quarter", "date_bin('15 minutes', timestamp, 'epoch')"),
    ("usage_days", "day", "(timestamp AT TIME ZONE 'UTC')::date"),
];

/// The sums of the ledger's rows, by user, time and model.
pub fn of_the_ledger(time: &str) -> String {
    format!(
        "SELECT user_id, {time} AS time, coalesce(model_used, '') AS model, sum(tokens_used)::bigint AS tokens,
                count(*) FILTER (WHERE kind <> 'correction') AS requests,
                coalesce(sum(input_tokens), 0)::bigint AS input_tokens,
                coalesce(sum(output_tokens), 0)::bigint AS output_tokens,
                coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens,
                count(*) FILTER (WHERE flags & 1 = 1) AS overages
         FROM token_transactions GROUP BY 1, 2, 3"
    )
}

/// The sums by quarter hour and model, and by day and model, are those of the ledger's rows.
pub async fn usage_is_the_ledger(pool: &PgPool) {
    for (table, column, time) in TABLES {
        let sql = format!(
            "SELECT user_id, format('%s %s: %s, and in the ledger %s', time, model, u, t)
             FROM (
                 SELECT user_id, {column} AS time, model,
                        (tokens, requests, input_tokens, output_tokens, cached_tokens, overages)::text AS u
                 FROM {table}
             ) u
             FULL JOIN (
                 SELECT user_id, time, model,
                        (tokens, requests, input_tokens, output_tokens, cached_tokens, overages)::text AS t
                 FROM ({}) s
             ) t USING (user_id, time, model)
             WHERE u IS DISTINCT FROM t",
            of_the_ledger(time)
        );
        let wrong: Vec<(Uuid, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(pool).await.unwrap();
        assert_eq!(wrong, [], "sums of {table} are those of the ledger");
    }
}
