-- What each user used, summed up by quarter hour and model.
--
-- Quarter hours of UTC, not hours of the user's zone: every zone's hours, days and months begin on one of them, also
-- those at :30 and :45, so that a change of a user's zone changes no row and any zone is answered exactly.

CREATE TABLE usage_quarters (
    user_id       uuid        NOT NULL REFERENCES user_accounts (id),
    -- The first instant of the quarter hour. A row of the ledger counts where its own time lies, a correction too.
    quarter       timestamptz NOT NULL,
    -- Empty where the rows name none.
    model         text        NOT NULL,
    -- May be negative: a correction gives back, perhaps later than what it corrects was used.
    tokens        bigint      NOT NULL DEFAULT 0,
    -- Rows of the ledger but corrections, which correct a request that was counted.
    requests      bigint      NOT NULL DEFAULT 0,
    input_tokens  bigint      NOT NULL DEFAULT 0,
    output_tokens bigint      NOT NULL DEFAULT 0,
    cached_tokens bigint      NOT NULL DEFAULT 0,
    -- Rows that were charged more than was reserved.
    overages      bigint      NOT NULL DEFAULT 0,
    -- Null while no row has a cost.
    cost_usd      numeric(20, 9),

    -- Also serves all reading of one user.
    PRIMARY KEY (user_id, quarter, model),
    -- Sums of one quarter hour can be told apart from those of the next.
    CONSTRAINT usage_quarters_quarter CHECK (extract(epoch FROM quarter)::bigint % 900 = 0),
    CONSTRAINT usage_quarters_counts CHECK (
        requests >= 0 AND overages >= 0 AND input_tokens >= 0 AND output_tokens >= 0 AND cached_tokens >= 0
    )
-- Flushes of the running quarter hour change its rows: with room on the page such an update touches no index.
) WITH (fillfactor = 80);

-- Serves what looks at all users of some hours or days. Rows come in about the order of their time, so that a few words
-- for each range of pages do.
CREATE INDEX usage_quarters_time ON usage_quarters USING brin (quarter) WITH (pages_per_range = 32, autosummarize = on);

INSERT INTO usage_quarters (
    user_id, quarter, model, tokens, requests, input_tokens, output_tokens, cached_tokens, overages
)
SELECT user_id, date_bin('15 minutes', "timestamp", 'epoch'), coalesce(model_used, ''), sum(tokens_used),
       count(*) FILTER (WHERE kind <> 'correction'), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0),
       coalesce(sum(cached_tokens), 0), count(*) FILTER (WHERE flags & 1 <> 0)
FROM token_transactions
GROUP BY 1, 2, 3;
