-- One-time tickets for the live stream: a browser's EventSource sends no header.

CREATE TABLE event_tickets (
    -- SHA-256 of the ticket.
    hash       bytea       PRIMARY KEY,
    user_id    uuid        NOT NULL REFERENCES user_accounts (id),
    expires_at timestamptz NOT NULL,

    CONSTRAINT event_tickets_hash CHECK (octet_length(hash) = 32)
);

-- Serves the bound on a user's tickets.
CREATE INDEX event_tickets_of_user ON event_tickets (user_id, expires_at);

-- Serves the deletion of what nobody took.
CREATE INDEX event_tickets_expired ON event_tickets (expires_at);
