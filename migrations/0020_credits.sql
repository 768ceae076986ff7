-- What was paid for a grant, and which transaction an adjustment is about.

-- An adjustment may give back what a transaction charged, or correct that.
ALTER TABLE grants
    ADD COLUMN transaction_id uuid REFERENCES token_transactions (id),
    ADD CONSTRAINT grants_transaction CHECK (transaction_id IS NULL OR kind = 'adjustment');

-- Serves the bound of a reversal: what was given back of a transaction so far.
CREATE INDEX grants_of_transaction ON grants (transaction_id) WHERE transaction_id IS NOT NULL;

-- The payments behind grants; a bonus or an adjustment has none.
CREATE TABLE credit_purchases (
    grant_id           uuid           PRIMARY KEY REFERENCES grants (id),
    user_id            uuid           NOT NULL REFERENCES user_accounts (id),
    tokens_purchased   bigint         NOT NULL,
    payment_method     text           NOT NULL,
    -- In whole units of the currency; exact to the billionth.
    amount_paid        numeric(20, 9) NOT NULL,
    currency           text           NOT NULL,
    -- Who took the payment; references are unique within it.
    provider           text           NOT NULL,
    provider_reference text,
    created_at         timestamptz    NOT NULL DEFAULT now(),

    CONSTRAINT credit_purchases_tokens_range CHECK (tokens_purchased BETWEEN 1 AND 1000000000000),
    CONSTRAINT credit_purchases_amount_range CHECK (amount_paid >= 0 AND amount_paid < 1000000000),
    CONSTRAINT credit_purchases_currency CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT credit_purchases_method_length CHECK (octet_length(payment_method) BETWEEN 1 AND 100),
    CONSTRAINT credit_purchases_provider_length CHECK (octet_length(provider) BETWEEN 1 AND 100),
    CONSTRAINT credit_purchases_reference_length CHECK (octet_length(provider_reference) BETWEEN 1 AND 255),
    -- A payment is credited once, whoever reports it and how often; also finds the first answer.
    CONSTRAINT credit_purchases_once UNIQUE (provider, provider_reference)
);

-- Serves what is to be told or reported of one user's purchases, newest first.
CREATE INDEX credit_purchases_of_user ON credit_purchases (user_id, grant_id DESC);
