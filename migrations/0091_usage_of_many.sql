-- A month over all users reads the sums of whole days set by set, not user by user.

CREATE INDEX usage_days_by_day ON usage_days (day);

-- What each of these users used in a span of its own, by model; rows of one user and model add up. Days that are whole in
-- every span are read together, what is left of each at both ends as cota_usage says.
CREATE FUNCTION cota_usage_of(users uuid[], starts timestamptz[], ends timestamptz[])
RETURNS TABLE (
    user_id uuid, model text, tokens bigint, requests bigint, input_tokens bigint, output_tokens bigint,
    cached_tokens bigint, overages bigint
)
LANGUAGE sql STABLE AS $$
    WITH spans AS MATERIALIZED (
        SELECT s.user_id, s.starts, s.ends FROM UNNEST(users, starts, ends) AS s (user_id, starts, ends)
    ),
    shared AS MATERIALIZED (
        SELECT s.first, greatest(s.first, s.after) AS after
        FROM (
            SELECT date_bin('1 day', max(starts) + interval '1 day' - interval '1 microsecond', 'epoch') AS first,
                   date_bin('1 day', min(ends), 'epoch') AS after
            FROM spans
        ) s
    )
    SELECT d.user_id, d.model, d.tokens, d.requests, d.input_tokens, d.output_tokens, d.cached_tokens, d.overages
    FROM (
        SELECT u.user_id, u.model, sum(u.tokens)::bigint AS tokens, sum(u.requests)::bigint AS requests,
               sum(u.input_tokens)::bigint AS input_tokens, sum(u.output_tokens)::bigint AS output_tokens,
               sum(u.cached_tokens)::bigint AS cached_tokens, sum(u.overages)::bigint AS overages
        FROM usage_days u
        -- Named one by one: of a range between unknown days the planner would expect next to nothing.
        WHERE u.day = ANY (ARRAY(
            SELECT generate_series(
                shared.first AT TIME ZONE 'UTC', shared.after AT TIME ZONE 'UTC' - interval '1 day', interval '1 day'
            )::date
            FROM shared
        ))
        GROUP BY u.user_id, u.model
    ) d
    JOIN spans ON spans.user_id = d.user_id
    UNION ALL
    SELECT spans.user_id, u.model, u.tokens, u.requests, u.input_tokens, u.output_tokens, u.cached_tokens, u.overages
    FROM spans
    CROSS JOIN shared
    CROSS JOIN LATERAL (
        VALUES (spans.starts, least(shared.first, spans.ends)), (shared.after, spans.ends)
    ) AS rest (starts, ends)
    CROSS JOIN LATERAL cota_usage(spans.user_id, rest.starts, rest.ends) u
    WHERE rest.starts < rest.ends
$$;
