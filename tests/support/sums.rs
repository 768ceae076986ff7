//! Whether the sums of usage are those of the ledger.

use sqlx::PgPool;
use uuid::Uuid;

/// The sums by quarter hour and model are those of the ledger's rows.
pub async fn usage_is_the_ledger(pool: &PgPool) {
    let wrong: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT user_id, format('%s %s: %s, and in the ledger %s', quarter, model, u, t)
         FROM (
             SELECT user_id, quarter, model,
                    (tokens, requests, input_tokens, output_tokens, cached_tokens, overages)::text AS u
             FROM usage_quarters
         ) u
         FULL JOIN (
             SELECT user_id, date_bin('15 minutes', timestamp, 'epoch') AS quarter, coalesce(model_used, '') AS model,
                    (sum(tokens_used)::bigint, count(*) FILTER (WHERE kind <> 'correction'),
                     coalesce(sum(input_tokens), 0)::bigint, coalesce(sum(output_tokens), 0)::bigint,
                     coalesce(sum(cached_tokens), 0)::bigint, count(*) FILTER (WHERE flags & 1 = 1))::text AS t
             FROM token_transactions GROUP BY 1, 2, 3
         ) t USING (user_id, quarter, model)
         WHERE u IS DISTINCT FROM t",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert_eq!(wrong, [], "sums of usage are those of the ledger");
}
