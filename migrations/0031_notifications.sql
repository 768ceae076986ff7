-- The queue of what is to be sent, and the log of what was: one row for each event, channel and receiver.

CREATE TABLE notifications (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id        bigint      NOT NULL REFERENCES user_events (id),
    user_id         uuid        NOT NULL REFERENCES user_accounts (id),
    channel         text        NOT NULL,
    -- Its log goes with an endpoint.
    endpoint_id     uuid        REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    state           text        NOT NULL DEFAULT 'pending',
    -- Of the present turn: a re-send begins a new one.
    attempts        integer     NOT NULL DEFAULT 0,
    -- Whoever takes it on to send it moves this to the end of its lease: should it die, the next one takes over then.
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    -- Of the attempt that runs, if one does; what another attempt learns is no longer noted.
    lease           uuid,
    last_attempt_at timestamptz,
    -- What the receiver answered last, if it did.
    last_status     smallint,
    last_error      text,
    finished_at     timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT notifications_channel CHECK (channel IN ('webhook', 'email')),
    CONSTRAINT notifications_endpoint CHECK ((endpoint_id IS NOT NULL) = (channel = 'webhook')),
    CONSTRAINT notifications_state CHECK (state IN ('pending', 'delivered', 'failed')),
    CONSTRAINT notifications_attempts CHECK (attempts >= 0),
    CONSTRAINT notifications_lease CHECK (lease IS NULL OR state = 'pending'),
    CONSTRAINT notifications_finished CHECK ((finished_at IS NULL) = (state = 'pending')),
    CONSTRAINT notifications_status CHECK (last_status BETWEEN 100 AND 999),
    CONSTRAINT notifications_error CHECK (octet_length(last_error) <= 255)
);

-- Each event goes to each endpoint once …
CREATE UNIQUE INDEX notifications_once_per_endpoint ON notifications (endpoint_id, event_id) WHERE channel = 'webhook';

-- … and into one e-mail.
CREATE UNIQUE INDEX notifications_once_by_email ON notifications (event_id) WHERE channel = 'email';

-- Serves the sender: what is due, the longest overdue first; and the depth of the queue.
CREATE INDEX notifications_due ON notifications (channel, next_attempt_at) WHERE state = 'pending';

-- Serves the sender: how much is just being sent to an endpoint.
CREATE INDEX notifications_under_way ON notifications (endpoint_id) WHERE lease IS NOT NULL;

-- Serves the log of an endpoint, newest first.
CREATE INDEX notifications_of_endpoint ON notifications (endpoint_id, id DESC) WHERE channel = 'webhook';

-- Serves the tidying of old ones.
CREATE INDEX notifications_old ON notifications (finished_at) WHERE finished_at IS NOT NULL;
