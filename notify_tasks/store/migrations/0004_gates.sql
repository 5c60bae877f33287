-- What the gates leave in the database: which providers are left out, and what waits for them.

-- Each process's word of a provider that it leaves out. Whoever sees the provider work takes back what all have said.
-- Other processes read it, so that one that has just started does not have to find out by itself, and `notify doctor`
-- tells the operator.
CREATE TABLE notify.provider_report (
    worker        text        NOT NULL,   -- host:pid, as its attempts name it
    provider      text        NOT NULL,
    code          text        NOT NULL,   -- of the last failure
    misconfigured boolean     NOT NULL,
    since         timestamptz NOT NULL,
    failed_at     timestamptz NOT NULL,   -- the last time
    seen_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (worker, provider)
);

-- What waits behind a closed gate and not for a time: brought forward when the gate opens, the high lane first.
CREATE INDEX delivery_gated ON notify.delivery (reason, channel, (lane = 'high') DESC, due_at)
    WHERE state = 'held' AND reason IN ('no_provider_ready', 'provider_share_full');
CREATE INDEX delivery_paused ON notify.delivery (due_at) WHERE state = 'held' AND reason LIKE 'paused: %';
-- Of a backlog that is due, the high lane's go first.
CREATE INDEX delivery_due_high ON notify.delivery (due_at) WHERE state IN ('held', 'retrying') AND lane = 'high';

-- Names the counters of per-recipient limits in Redis: an address cannot be guessed from them without this key.
CREATE TABLE notify.limit_key (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    key      text    NOT NULL DEFAULT gen_random_uuid()::text || gen_random_uuid()::text
);
INSERT INTO notify.limit_key (only_row) VALUES (true);
