-- Everything lives in a schema of its own, so that a producer's database can be the fleet's as well.
-- Times are the database's. `tenant` is on every row that belongs to one.

CREATE SCHEMA IF NOT EXISTS notify;

-- People ---------------------------------------------------------------------------------------------

CREATE TABLE notify.recipient (
    tenant      text        NOT NULL,
    id          text        NOT NULL,
    locale      text,
    timezone    text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id)
);

CREATE TABLE notify.contact_point (
    tenant       text        NOT NULL,
    recipient_id text        NOT NULL,
    channel      text        NOT NULL,
    address      text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, recipient_id, channel, address),
    FOREIGN KEY (tenant, recipient_id) REFERENCES notify.recipient (tenant, id) ON DELETE CASCADE
);

CREATE TABLE notify.suppression (
    tenant     text        NOT NULL,
    channel    text        NOT NULL,
    address    text        NOT NULL,
    reason     text        NOT NULL,
    source     text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, channel, address)
);

-- The way in -----------------------------------------------------------------------------------------

-- Calls that are kept but not yet planned: durable intake, what the ledger had lost, types still unknown.
-- The hash is part of the key, so that two bodies under one id both get here and the conflict is judged.
CREATE TABLE notify.intake (
    tenant     text        NOT NULL,
    message_id text        NOT NULL,
    hash       text        NOT NULL,
    envelope   jsonb       NOT NULL,
    origin     text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    due_at     timestamptz NOT NULL DEFAULT now(),
    tries      smallint    NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, message_id, hash)
);
CREATE INDEX intake_due ON notify.intake (due_at);

-- Ids are remembered here, apart from the notifications, for as long as a repetition may come. A row with
-- `cancelled_at` and no notification is a tombstone: the cancel came before the call was seen.
CREATE TABLE notify.message_key (
    tenant          text        NOT NULL,
    message_id      text        NOT NULL,
    hash            text,
    notification_id uuid,
    cancelled_at    timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, message_id)
);
CREATE INDEX message_key_age ON notify.message_key (created_at);

-- Notifications, deliveries, attempts ----------------------------------------------------------------

CREATE TABLE notify.notification (
    id          uuid        PRIMARY KEY,
    tenant      text        NOT NULL,
    message_id  text        NOT NULL,
    event_type  text        NOT NULL,
    source      text,
    occurred_at timestamptz NOT NULL,
    payload     jsonb       NOT NULL,
    plan        jsonb       NOT NULL,
    state       text        NOT NULL CHECK (state IN ('accepted', 'rejected', 'digested', 'cancelled')),
    reason      text,
    detail      text,
    hash        text        NOT NULL,
    cancel_key  text,
    envelope    jsonb,      -- kept for what was rejected, so that it can be replayed
    accepted_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX notification_message ON notify.notification (tenant, message_id);

CREATE TABLE notify.delivery (
    id                  uuid        PRIMARY KEY,
    notification_id     uuid        NOT NULL REFERENCES notify.notification (id) ON DELETE CASCADE,
    tenant              text        NOT NULL,
    message_id          text        NOT NULL,
    event_type          text        NOT NULL,
    recipient_id        text,
    address             text        NOT NULL,
    locale              text,
    channel             text        NOT NULL,
    lane                text        NOT NULL CHECK (lane IN ('high', 'normal', 'bulk')),
    state               text        NOT NULL CHECK (state IN (
        'held', 'queued', 'retrying', 'sending', 'sent', 'delivered', 'undelivered', 'failed', 'in_doubt',
        'cancelled', 'expired', 'suppressed', 'superseded')),
    reason              text,
    detail              text,
    on_doubt            text        NOT NULL CHECK (on_doubt IN ('resend', 'hold')),
    sandbox             boolean     NOT NULL DEFAULT false,
    due_at              timestamptz,             -- when the sweep wakes a held or retrying row
    not_before          timestamptz,             -- no claim earlier than this (Retry-After)
    expires_at          timestamptz,
    marker              bigint      NOT NULL DEFAULT 0,  -- the queue's marker number when it was last woken
    fence               integer     NOT NULL DEFAULT 0,
    lease_until         timestamptz,
    attempts            smallint    NOT NULL DEFAULT 0,  -- those that count against the limit
    max_attempts        smallint    NOT NULL,
    unknown             smallint    NOT NULL DEFAULT 0,  -- attempts whose outcome is unknown
    accepted            boolean     NOT NULL DEFAULT false,  -- some attempt was accepted, perhaps a late one
    provider            text,
    provider_message_id text,
    template_version    text,
    replay_of           uuid,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 85);
CREATE INDEX delivery_notification ON notify.delivery (notification_id);
CREATE UNIQUE INDEX delivery_replay ON notify.delivery (replay_of) WHERE replay_of IS NOT NULL;
-- The hot queries see waiting rows only, so that they stay flat as history grows.
CREATE INDEX delivery_queued ON notify.delivery (channel, lane, marker) WHERE state = 'queued';
CREATE INDEX delivery_due ON notify.delivery (due_at) WHERE state IN ('held', 'retrying');
CREATE INDEX delivery_leased ON notify.delivery (lease_until) WHERE state = 'sending';
CREATE INDEX delivery_expiring ON notify.delivery (expires_at)
    WHERE state IN ('held', 'queued', 'retrying') AND expires_at IS NOT NULL;

CREATE TABLE notify.attempt (
    token               uuid        PRIMARY KEY,  -- made by the worker: a claim repeated with it is the same claim
    delivery_id         uuid        NOT NULL REFERENCES notify.delivery (id) ON DELETE CASCADE,
    number              integer     NOT NULL,
    fence               integer     NOT NULL,
    provider            text        NOT NULL,
    idempotency_key     text        NOT NULL,
    worker              text        NOT NULL,
    started_at          timestamptz NOT NULL DEFAULT now(),
    ended_at            timestamptz,
    outcome             text,       -- NULL while it runs; `lost` where the lease ended first
    code                text,
    detail              text,
    provider_message_id text
);
CREATE INDEX attempt_delivery ON notify.attempt (delivery_id);

CREATE TABLE notify.status_event (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant          text        NOT NULL,
    notification_id uuid        NOT NULL,
    delivery_id     uuid,
    kind            text        NOT NULL,
    code            text,
    detail          text,
    at              timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX status_event_notification ON notify.status_event (notification_id);

CREATE TABLE notify.inbox_item (
    delivery_id  uuid        PRIMARY KEY,
    tenant       text        NOT NULL,
    recipient_id text        NOT NULL,
    event_type   text        NOT NULL,
    data         jsonb       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    read_at      timestamptz
);
CREATE INDEX inbox_item_recipient ON notify.inbox_item (tenant, recipient_id, created_at DESC);

-- The queue that carries a delivery's wake-ups (`routing.queue_for`).
CREATE FUNCTION notify.queue_for(channel text, lane text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN 'notify.' || channel || CASE lane WHEN 'normal' THEN '' ELSE '.' || lane END;

-- Keeping watch --------------------------------------------------------------------------------------

-- A marker is a numbered message that follows waiting work through its queue. What was published before a
-- marker that has run, and is still unclaimed, was lost.
CREATE TABLE notify.marker (
    queue   text        NOT NULL,
    n       bigint      NOT NULL,
    bucket  bigint,                 -- the ledger bucket in which it was sent
    sent_at timestamptz NOT NULL DEFAULT now(),
    ran_at  timestamptz,
    PRIMARY KEY (queue, n)
);

-- The number that a row stores when it is about to be published on a queue.
CREATE FUNCTION notify.marker_now(queue_name text) RETURNS bigint
    LANGUAGE sql STABLE
    RETURN coalesce((SELECT max(m.n) FROM notify.marker m WHERE m.queue = queue_name), 0);

CREATE TABLE notify.sweep (
    only_row    boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    last_at     timestamptz,
    last_by     text,
    leases_from timestamptz         -- no lease ends before this: the sweep itself had been away
);
INSERT INTO notify.sweep (only_row) VALUES (true);

CREATE TABLE notify.counter (
    name  text   PRIMARY KEY,
    value bigint NOT NULL DEFAULT 0
);

CREATE TABLE notify.pause (
    kind   text        NOT NULL CHECK (kind IN ('queue', 'type', 'tenant')),
    name   text        NOT NULL,
    reason text        NOT NULL,
    since  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, name)
);

CREATE TABLE notify.parked_message (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest      text        NOT NULL UNIQUE,  -- of queue, time and bytes: parking twice is parking once
    queue       text        NOT NULL,
    reason      text        NOT NULL,
    detail      text,
    raw         bytea       NOT NULL,
    parked_at   timestamptz NOT NULL DEFAULT now(),
    replayed_at timestamptz
);
