-- What each user used, summed up by day of UTC and model, beside the quarter hours: so that a month over all users reads
-- a row per day instead of up to 96.

CREATE TABLE usage_days (
    user_id       uuid    NOT NULL REFERENCES user_accounts (id),
    -- Of UTC.
    day           date    NOT NULL,
    -- Empty where the rows name none.
    model         text    NOT NULL,
    -- As in usage_quarters, of whose rows these are the sums at every moment.
    tokens        bigint  NOT NULL DEFAULT 0,
    requests      bigint  NOT NULL DEFAULT 0,
    input_tokens  bigint  NOT NULL DEFAULT 0,
    output_tokens bigint  NOT NULL DEFAULT 0,
    cached_tokens bigint  NOT NULL DEFAULT 0,
    overages      bigint  NOT NULL DEFAULT 0,
    cost_usd      numeric(20, 9),

    PRIMARY KEY (user_id, day, model),
    CONSTRAINT usage_days_counts CHECK (
        requests >= 0 AND overages >= 0 AND input_tokens >= 0 AND output_tokens >= 0 AND cached_tokens >= 0
    )
-- Flushes of the running day change its rows: with room on the page such an update touches no index.
) WITH (fillfactor = 80);

SET LOCAL cota.scope = 'service';

INSERT INTO usage_days (user_id, day, model, tokens, requests, input_tokens, output_tokens, cached_tokens, overages)
SELECT user_id, (quarter AT TIME ZONE 'UTC')::date, model, sum(tokens), sum(requests), sum(input_tokens),
       sum(output_tokens), sum(cached_tokens), sum(overages)
FROM usage_quarters
GROUP BY 1, 2, 3;

SELECT cota_isolate('usage_days');

-- What a user used from one quarter hour to another, by model: whole days of UTC from their sums, what is left at both
-- ends from quarter hours.
CREATE FUNCTION cota_usage(of_user uuid, starts timestamptz, ends timestamptz)
RETURNS TABLE (
    model text, tokens bigint, requests bigint, input_tokens bigint, output_tokens bigint, cached_tokens bigint,
    overages bigint
)
LANGUAGE sql STABLE AS $$
    SELECT u.model, sum(u.tokens)::bigint, sum(u.requests)::bigint, sum(u.input_tokens)::bigint,
           sum(u.output_tokens)::bigint, sum(u.cached_tokens)::bigint, sum(u.overages)::bigint
    FROM (
        SELECT date_bin('1 day', starts + interval '1 day' - interval '1 microsecond', 'epoch') AS first,
               date_bin('1 day', ends, 'epoch') AS after
    ) whole
    CROSS JOIN LATERAL (
        SELECT d.model, d.tokens, d.requests, d.input_tokens, d.output_tokens, d.cached_tokens, d.overages
        FROM usage_days d
        WHERE d.user_id = of_user
          AND d.day >= (whole.first AT TIME ZONE 'UTC')::date AND d.day < (whole.after AT TIME ZONE 'UTC')::date
        UNION ALL
        SELECT q.model, q.tokens, q.requests, q.input_tokens, q.output_tokens, q.cached_tokens, q.overages
        FROM usage_quarters q
        WHERE q.user_id = of_user AND q.quarter >= starts AND q.quarter < least(whole.first, ends)
        UNION ALL
        SELECT q.model, q.tokens, q.requests, q.input_tokens, q.output_tokens, q.cached_tokens, q.overages
        FROM usage_quarters q
        WHERE q.user_id = of_user AND q.quarter >= greatest(whole.first, whole.after) AND q.quarter < ends
    ) u
    GROUP BY u.model
$$;
