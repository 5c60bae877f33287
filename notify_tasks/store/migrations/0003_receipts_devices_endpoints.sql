-- Receipts, what is known of contact points and devices, and webhook endpoints with secrets of their own.

-- Receipts -------------------------------------------------------------------------------------------

-- What a provider said in one request, kept for as long as an event of it is not applied: so that a later version can
-- read it again. It is private.
CREATE TABLE notify.receipt_request (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider    text        NOT NULL,
    raw         bytea       NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
);

-- One row an event, committed before anything is done about it. What matches no delivery yet is tried again until
-- `give_up_at`. A new row is given to a worker at once; where that is lost, the sweep finds it when it is due.
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
    request_id          bigint      REFERENCES notify.receipt_request (id) ON DELETE SET NULL,
    happened_at         timestamptz,
    received_at         timestamptz NOT NULL DEFAULT now(),
    due_at              timestamptz NOT NULL DEFAULT now() + interval '3 seconds',
    give_up_at          timestamptz NOT NULL DEFAULT now() + interval '72 hours',
    tries               smallint    NOT NULL DEFAULT 0,
    applied_at          timestamptz,
    UNIQUE (provider, event_id)
);
CREATE INDEX receipt_due ON notify.receipt (due_at) WHERE state IN ('new', 'waiting');
CREATE INDEX receipt_trouble ON notify.receipt (id) WHERE state IN ('unmatched', 'unknown', 'unreadable');
CREATE INDEX receipt_of_request ON notify.receipt (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX receipt_of_delivery ON notify.receipt (delivery_id) WHERE delivery_id IS NOT NULL;
-- Of a STOP and a START, whichever was said last counts, in whatever order they come.
CREATE INDEX receipt_consent ON notify.receipt (channel, md5(address)) WHERE standing IN ('opted_out', 'opted_in');

-- A receipt without a delivery suppresses an address for every tenant, under the name '*', which is therefore nobody's.
ALTER TABLE notify.recipient ADD CONSTRAINT recipient_tenant_named CHECK (tenant <> '*') NOT VALID;
ALTER TABLE notify.notification ADD CONSTRAINT notification_tenant_named CHECK (tenant <> '*') NOT VALID;
ALTER TABLE notify.delivery ADD CONSTRAINT delivery_tenant_named CHECK (tenant <> '*') NOT VALID;

-- Contact points and devices -------------------------------------------------------------------------

ALTER TABLE notify.contact_point
    ADD COLUMN verified_at  timestamptz,   -- when the person proved that it is theirs
    ADD COLUMN last_seen_at timestamptz,   -- of a device: when its app last told its token
    ADD COLUMN platform     text,          -- of a device: android, ios, web
    ADD COLUMN label        text;          -- of a device: what its owner calls it
-- Whose device a token is: a dead one is removed, and one that a person hands on leaves them.
CREATE INDEX contact_point_device ON notify.contact_point (tenant, channel, digest)
    WHERE channel IN ('push', 'webpush');

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

-- When codes were made for an address, whoever claims it: a person must not be flooded, nor a code guessed by asking
-- for new ones. A row lives for as long as it counts.
CREATE TABLE notify.verification_begun (
    tenant  text        NOT NULL,
    channel text        NOT NULL,
    digest  text        NOT NULL,
    at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX verification_begun_address ON notify.verification_begun (tenant, channel, digest);
CREATE INDEX verification_begun_age ON notify.verification_begun (at);

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
    failed_at       timestamptz,            -- the last one: after a long silence the count begins anew
    disabled_at     timestamptz,
    disabled_reason text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, digest)
);
