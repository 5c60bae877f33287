-- Receipts, what is known of contact points and devices, and webhook endpoints with secrets of their own.

-- Receipts -------------------------------------------------------------------------------------------

-- One row an event, committed before anything is done about it. What matches no delivery yet is tried again until
-- `give_up_at`. `raw` is what the provider said, kept so that a later version can read it again; it is private.
CREATE TABLE notify.receipt (
    id                  bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider            text        NOT NULL,
    event_id            text        NOT NULL,
    state               text        NOT NULL CHECK (state IN ('new', 'waiting', 'applied', 'unmatched', 'unknown', 'unreadable')),
    code                text,
    fate                text        CHECK (fate IN ('accepted', 'sent', 'delivered', 'read', 'undelivered')),
    standing            text        CHECK (standing IN ('address_invalid', 'opted_out', 'complained', 'opted_in')),
    channel             text        NOT NULL,
    delivery_id         uuid,
    provider_message_id text,
    address             text,
    detail              text,
    raw                 bytea       NOT NULL,
    happened_at         timestamptz,
    received_at         timestamptz NOT NULL DEFAULT now(),
    due_at              timestamptz NOT NULL DEFAULT now(),
    give_up_at          timestamptz NOT NULL DEFAULT now() + interval '72 hours',
    tries               smallint    NOT NULL DEFAULT 0,
    applied_at          timestamptz,
    UNIQUE (provider, event_id)
);
CREATE INDEX receipt_due ON notify.receipt (due_at) WHERE state IN ('new', 'waiting');
CREATE INDEX receipt_trouble ON notify.receipt (id) WHERE state IN ('unmatched', 'unknown', 'unreadable');

-- Contact points and devices -------------------------------------------------------------------------

ALTER TABLE notify.contact_point
    ADD COLUMN verified_at  timestamptz,   -- when the person proved that it is theirs
    ADD COLUMN last_seen_at timestamptz,   -- of a device: when its app last told its token
    ADD COLUMN platform     text,          -- of a device: android, ios, web
    ADD COLUMN label        text;          -- of a device: what its owner calls it

-- Codes that were sent to prove an address. The code itself is kept as a hash.
CREATE TABLE notify.verification (
    tenant       text        NOT NULL,
    recipient_id text        NOT NULL,
    channel      text        NOT NULL,
    digest       text        NOT NULL,
    code_hash    text        NOT NULL,
    tries_left   smallint    NOT NULL,
    expires_at   timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, recipient_id, channel, digest),
    FOREIGN KEY (tenant, recipient_id, channel, digest)
        REFERENCES notify.contact_point (tenant, recipient_id, channel, digest) ON DELETE CASCADE
);

-- Webhook endpoints ----------------------------------------------------------------------------------

-- One row for each URL that has secrets of its own, or has failed. Secrets are encrypted with the fleet's key.
CREATE TABLE notify.webhook_endpoint (
    tenant          text        NOT NULL,
    digest          text        NOT NULL,   -- md5 of the URL; it guards nothing
    url             text        NOT NULL,
    secret          bytea,
    previous_secret bytea,
    previous_until  timestamptz,            -- until then both sign
    failing_since   timestamptz,            -- the first failure since the last success
    disabled_at     timestamptz,
    disabled_reason text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, digest)
);
