-- One step for one release: all that stands around the path of a notification.

-- Zones, longer addresses, attachments, what workers report of themselves ----------------------------

-- The zone in which a delivery's templates show times: beside its locale, as both were when it was planned.
ALTER TABLE notify.delivery ADD COLUMN timezone text;

-- An address may be longer than a btree's entry (some 2,700 bytes): a push token has up to 4,096 characters. Such a
-- row was refused with SQLSTATE 54000, so what is unique, and looked up, is the digest. It guards nothing.
ALTER TABLE notify.contact_point
    DROP CONSTRAINT contact_point_pkey,
    ADD COLUMN digest text NOT NULL GENERATED ALWAYS AS (md5(address)) STORED,
    ADD PRIMARY KEY (tenant, recipient_id, channel, digest);
ALTER TABLE notify.suppression
    DROP CONSTRAINT suppression_pkey,
    ADD COLUMN digest text NOT NULL GENERATED ALWAYS AS (md5(address)) STORED,
    ADD COLUMN id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    ADD PRIMARY KEY (tenant, channel, digest);
-- Lists of suppressed addresses are read newest first.
CREATE UNIQUE INDEX suppression_page ON notify.suppression (tenant, id);

-- What somebody has not read: the number beside the bell, and the list of it.
CREATE INDEX inbox_item_unread ON notify.inbox_item (tenant, recipient_id, created_at DESC) WHERE read_at IS NULL;

-- Lists of recipients are read page by page and by how an id begins, in the order of bytes.
CREATE INDEX recipient_page ON notify.recipient (tenant, id COLLATE "C");

-- What erasing one person looks for.
CREATE INDEX delivery_recipient ON notify.delivery (tenant, recipient_id) WHERE recipient_id IS NOT NULL;
CREATE INDEX notification_envelope ON notify.notification USING gin ((envelope -> 'to') jsonb_path_ops)
    WHERE envelope IS NOT NULL;

-- What is attached to a notification: names, types, and sizes or paths. NULL where nothing is, so that the statements
-- of all the others cost what they did before.
ALTER TABLE notify.notification ADD COLUMN attachments jsonb;

-- The bytes that came in the call, once a notification. Only a delivery that carries them reads this table. They may
-- be deleted before their notification, once its deliveries have ended: it can then be sent again no more.
CREATE TABLE notify.attachment (
    notification_id uuid     NOT NULL REFERENCES notify.notification (id) ON DELETE CASCADE,
    position        smallint NOT NULL,
    tenant          text     NOT NULL,
    content         bytea    NOT NULL,
    PRIMARY KEY (notification_id, position)
);
-- What people attach (PDF, images, archives) is compressed already.
ALTER TABLE notify.attachment ALTER COLUMN content SET STORAGE EXTERNAL;

-- Which configuration each worker process has in force, so that `notify doctor` can tell one that still uses an old
-- one because a newer file is broken. Rewritten every half a minute; a process that is gone leaves an old row.
CREATE TABLE notify.configuration_report (
    worker        text        PRIMARY KEY,   -- host:pid, as its attempts name it
    version       text        NOT NULL,      -- of the files in force: a hash of their content
    files         text        NOT NULL,
    since         timestamptz NOT NULL,
    problem       text,                      -- why a newer file is not in force; holds no secret
    problem_since timestamptz,
    seen_at       timestamptz NOT NULL DEFAULT now()
);

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

-- Gates: which providers are left out, and what waits for them --------------------------------------

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
CREATE INDEX delivery_paused ON notify.delivery ((lane = 'high') DESC, due_at)
    WHERE state = 'held' AND reason LIKE 'paused: %';
-- Of a backlog that is due, the high lane's go first.
CREATE INDEX delivery_due_high ON notify.delivery (due_at) WHERE state IN ('held', 'retrying') AND lane = 'high';

-- Names the counters of per-recipient limits in Redis: an address cannot be guessed from them without this key.
CREATE TABLE notify.limit_key (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    key      text    NOT NULL DEFAULT gen_random_uuid()::text || gen_random_uuid()::text
);
INSERT INTO notify.limit_key (only_row) VALUES (true);

-- Recurring schedules: what is called again and again, and which occurrences have become calls -------

CREATE TABLE notify.schedule (
    tenant     text        NOT NULL,
    id         text        NOT NULL,
    envelope   jsonb       NOT NULL,      -- of its calls, but for message_id, timestamp and expires
    lifetime   float8,                    -- seconds from an occurrence to its call's expiry
    kind       text        NOT NULL CHECK (kind IN ('cron', 'rrule')),
    rule       text        NOT NULL,
    timezone   text        NOT NULL,
    missed     text        NOT NULL CHECK (missed IN ('once', 'all', 'skip')),
    starts_at  timestamptz NOT NULL,
    ends_at    timestamptz,
    paused_at  timestamptz,
    next_at    timestamptz,               -- the first occurrence that nobody has taken up; NULL after the last
    problem    text,                      -- why it could not be looked at the last time,
    look_at    timestamptz,               -- and not before when it is looked at again
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id)
);
CREATE INDEX schedule_due ON notify.schedule (next_at) WHERE paused_at IS NULL;

-- It outlives its schedule, so that one of the same name does not send the same occurrence again.
CREATE TABLE notify.schedule_occurrence (
    tenant      text        NOT NULL,
    schedule_id text        NOT NULL,
    occurrence  timestamptz NOT NULL,
    message_id  text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, schedule_id, occurrence)
);
CREATE INDEX schedule_occurrence_message ON notify.schedule_occurrence (tenant, message_id);
CREATE INDEX schedule_occurrence_age ON notify.schedule_occurrence (created_at);

-- Preferences ----------------------------------------------------------------------------------------

-- What people want and do not want. One row a person, which planning reads with them; every version that there was is
-- kept beside it. Both go with the person.
CREATE TABLE notify.preference (
    tenant       text        NOT NULL,
    recipient_id text        NOT NULL,
    version      integer     NOT NULL,
    settings     jsonb       NOT NULL,
    changed_by   text        NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, recipient_id),
    FOREIGN KEY (tenant, recipient_id) REFERENCES notify.recipient (tenant, id) ON DELETE CASCADE
);

CREATE TABLE notify.preference_change (
    tenant       text        NOT NULL,
    recipient_id text        NOT NULL,
    version      integer     NOT NULL,
    settings     jsonb       NOT NULL,
    changed_by   text        NOT NULL,
    changed_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, recipient_id, version),
    FOREIGN KEY (tenant, recipient_id) REFERENCES notify.recipient (tenant, id) ON DELETE CASCADE
);

-- What a claim asks again, since a person may say no between plan and claim. NULL where nobody may say no: types that
-- are required, bare addresses, and deliveries that were planned before this migration.
ALTER TABLE notify.delivery
    ADD COLUMN category text,
    ADD COLUMN opt_in   boolean NOT NULL DEFAULT false;  -- the type goes only to those who have switched it on

-- Whether a person wants a category on a channel: the most specific choice holds, then the type's default.
CREATE FUNCTION notify.wanted(settings jsonb, category text, channel text, opt_in boolean) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(settings #>> ARRAY['categories', category, channel],
                    settings #>> ARRAY['categories', category, '*'],
                    settings #>> ARRAY['categories', '*', channel],
                    settings #>> ARRAY['categories', '*', '*'],
                    CASE WHEN opt_in THEN 'off' ELSE 'on' END) <> 'off'
$$;

-- Steps ----------------------------------------------------------------------------------------------

-- Where a type has steps, each entry of `to` is a chain of its own. Its deliveries of one step go together; those of a
-- later one are held, without a due time, until the step before has gone or could not go: then `step_at` says when they
-- are judged. It is not `due_at`, which a worker of before this migration would take for permission to send.
ALTER TABLE notify.delivery
    ADD COLUMN chain       smallint,   -- which entry of `to`
    ADD COLUMN step        smallint,   -- its place in the chain, from 0
    ADD COLUMN leads       boolean NOT NULL DEFAULT false,   -- another step waits for this one
    ADD COLUMN step_after  float8,     -- seconds from the step before it
    ADD COLUMN step_unless text[],     -- what makes it needless: read, delivered
    ADD COLUMN step_at     timestamptz;
CREATE INDEX delivery_step_at ON notify.delivery (step_at) WHERE state = 'held' AND step_at IS NOT NULL;

-- What has become of deliveries that another step waits for: taken up by the sweep. The trigger writes here instead of
-- to the step that waits, since its statement holds locks on other deliveries by then: those are taken in the order of
-- their ids, and an INSERT waits for nobody.
CREATE TABLE notify.step_moved (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    notification_id uuid        NOT NULL,
    chain           smallint    NOT NULL,
    step            smallint    NOT NULL,
    state           text        NOT NULL,
    at              timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION notify.note_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO notify.step_moved (notification_id, chain, step, state)
    VALUES (NEW.notification_id, NEW.chain, NEW.step, NEW.state);
    RETURN NULL;
END
$$;
-- Whatever moves a delivery: a worker's result, a receipt, the person's reading, a sweep. Where nothing waits for it,
-- that costs a look at one boolean.
CREATE TRIGGER step_accepted AFTER INSERT ON notify.delivery FOR EACH ROW
    WHEN (NEW.leads AND NEW.state NOT IN ('held', 'queued', 'retrying', 'sending'))
    EXECUTE FUNCTION notify.note_step();
CREATE TRIGGER step_moved AFTER UPDATE OF state ON notify.delivery FOR EACH ROW
    WHEN (NEW.leads AND NEW.state IS DISTINCT FROM OLD.state
          AND NEW.state NOT IN ('held', 'queued', 'retrying', 'sending'))
    EXECUTE FUNCTION notify.note_step();

-- Why a step is needless: what an earlier one of its chain has brought was `read`, or `delivered`, and that is what it
-- waits for. NULL where it is needed.
CREATE FUNCTION notify.step_answered(wanted uuid) RETURNS text
    LANGUAGE sql STABLE AS $$
    SELECT CASE
           WHEN EXISTS (SELECT 1 FROM notify.delivery e
                          JOIN notify.status_event v ON v.notification_id = e.notification_id
                               AND v.delivery_id = e.id AND v.kind = 'read'
                         WHERE e.notification_id = d.notification_id AND e.chain = d.chain AND e.step < d.step)
           THEN 'read'
           WHEN 'delivered' = ANY(d.step_unless)
                AND EXISTS (SELECT 1 FROM notify.delivery e
                             WHERE e.notification_id = d.notification_id AND e.chain = d.chain AND e.step < d.step
                               AND e.state = 'delivered')
           THEN 'delivered' END
      FROM notify.delivery d
     WHERE d.id = wanted AND d.step_unless <> '{}'
$$;

-- Operating ------------------------------------------------------------------------------------------

-- Who paused it: user@host.
ALTER TABLE notify.pause ADD COLUMN paused_by text;

-- When beat's tick was last carried out, by whatever worker: a worker that sweeps because nobody else does is none.
ALTER TABLE notify.sweep ADD COLUMN ticked_at timestamptz;

-- When the content went: payload, addresses, attachments, and what providers said in words of their own. What has
-- none is not sent again. The first index is what retention reads to blank rows, the second to delete them.
ALTER TABLE notify.notification ADD COLUMN purged_at timestamptz;
CREATE INDEX notification_kept ON notify.notification (accepted_at, id) WHERE purged_at IS NULL;
CREATE INDEX notification_purged ON notify.notification (accepted_at, id) WHERE purged_at IS NOT NULL;

-- What ended and was perhaps not sent: few rows, and what an operator lists, replays and resolves.
CREATE INDEX delivery_troubled ON notify.delivery (state, updated_at, id)
    WHERE state IN ('failed', 'undelivered', 'in_doubt', 'expired', 'cancelled', 'suppressed');

-- Traces ---------------------------------------------------------------------------------------------

-- The `traceparent` of the producer's call (W3C Trace Context), under which what a sweep wakes is traced as well. NULL
-- where the producer has no trace, and for what was accepted before this migration.
ALTER TABLE notify.notification ADD COLUMN trace text;

-- Cancelling by key ----------------------------------------------------------------------------------

-- Calls of this key that were made up to `made_until` are not accepted any more. Only an accept of a call that has a
-- key looks here.
CREATE TABLE notify.cancelled_key (
    tenant       text        NOT NULL,
    cancel_key   text        NOT NULL,
    made_until   timestamptz NOT NULL,   -- compared with the calls' own timestamps
    cancelled_at timestamptz NOT NULL,   -- by the database's clock
    until        timestamptz NOT NULL,   -- then it is forgotten
    PRIMARY KEY (tenant, cancel_key)
);
CREATE INDEX cancelled_key_age ON notify.cancelled_key (until);
CREATE INDEX notification_cancel_key ON notify.notification (tenant, cancel_key, id) WHERE cancel_key IS NOT NULL;

-- Digests and throttles ------------------------------------------------------------------------------

-- What is gathered for one person, or one bare address, on one channel. `key` names all that it is gathered by. An open
-- one takes what comes; one that is full takes nothing more, and is due.
CREATE TABLE notify.digest (
    id           uuid        PRIMARY KEY,
    key          text        NOT NULL,
    tenant       text        NOT NULL,
    recipient_id text,
    channel      text        NOT NULL,
    event_type   text        NOT NULL,      -- of what opened it
    digest_type  text        NOT NULL,
    by_value     jsonb,
    at           text        NOT NULL,      -- when it is due, in the words of a call's `digest`
    sandbox      boolean     NOT NULL,
    state        text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'full', 'closed')),
    opened_at    timestamptz NOT NULL DEFAULT now(),
    due_at       timestamptz NOT NULL,
    cap_at       timestamptz,               -- the latest, where items put it off
    most         integer     NOT NULL,      -- events at which it is full
    events       integer     NOT NULL,      -- that have joined; some may be cancelled by the time it is due
    opening      integer     NOT NULL,      -- 1 where what opened it went at once
    bytes        bigint      NOT NULL,      -- of payloads, about
    message_id   text,                      -- of its call,
    sent_events  integer,                   -- and what is in it
    closed_at    timestamptz
);
CREATE UNIQUE INDEX digest_open ON notify.digest (key) WHERE state = 'open';
CREATE INDEX digest_due ON notify.digest (due_at) WHERE state <> 'closed';
CREATE INDEX digest_recipient ON notify.digest (tenant, recipient_id) WHERE recipient_id IS NOT NULL;
CREATE INDEX digest_closed ON notify.digest (closed_at) WHERE state = 'closed';

-- A delivery that waits for its digest is `held` without a due time; it ends as `digested`.
ALTER TABLE notify.delivery ADD COLUMN digest_id uuid;
CREATE INDEX delivery_digest ON notify.delivery (digest_id) WHERE digest_id IS NOT NULL;
ALTER TABLE notify.delivery
    DROP CONSTRAINT delivery_state_check,
    ADD CONSTRAINT delivery_state_check CHECK (state IN (
        'held', 'queued', 'retrying', 'sending', 'sent', 'delivered', 'undelivered', 'failed', 'in_doubt',
        'cancelled', 'expired', 'suppressed', 'superseded', 'digested')) NOT VALID;

-- How many have gone to one person over one channel in the present window. Where what comes too many is held, places
-- are given away in the next windows as well, so `used` may be more than the limit.
CREATE TABLE notify.throttle (
    key          text        PRIMARY KEY,
    tenant       text        NOT NULL,
    recipient_id text,
    channel      text        NOT NULL,
    event_type   text        NOT NULL,
    most         integer     NOT NULL,      -- in a window
    seconds      float8      NOT NULL,      -- of so long
    over         text        NOT NULL,
    places       bigint      NOT NULL,      -- those after them come too late for anybody
    window_start timestamptz NOT NULL,
    used         bigint      NOT NULL,
    ends_at      timestamptz NOT NULL       -- then the row says nothing any more
);
-- What of a row still counts in the window that begins at `start`: places that were given away in it, where it is a
-- later one than the row's.
CREATE FUNCTION notify.throttle_used(t notify.throttle, start timestamptz) RETURNS bigint
    LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN t.window_start >= start THEN least(t.used, t.places)
                WHEN t.over = 'hold'
                THEN greatest(0, least(t.used, t.places)
                                 - t.most * round(extract(epoch FROM start - t.window_start)::float8 / t.seconds)::bigint)
                ELSE 0 END
$$;
CREATE INDEX throttle_ends ON notify.throttle (ends_at);
CREATE INDEX throttle_recipient ON notify.throttle (tenant, recipient_id) WHERE recipient_id IS NOT NULL;

-- Metrics --------------------------------------------------------------------------------------------

-- The time for which a delivery was planned, once it has come: how late it is counts from then. NULL counts from
-- `created_at`.
ALTER TABLE notify.delivery ADD COLUMN planned_for timestamptz;

-- Whether a held delivery waits because it should, and not because something is closed, busy or away.
CREATE FUNCTION notify.waits_by_plan(reason text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN coalesce(reason, '') NOT IN ('no_provider_ready', 'provider_share_full')
           AND coalesce(reason, '') NOT LIKE 'paused: %' AND coalesce(reason, '') NOT LIKE 'rate:%';

-- The queues that the process takes messages from. NULL where it does not say.
ALTER TABLE notify.configuration_report ADD COLUMN queues text[];

-- Totals, added up from `status_event` a few seconds after the fact and never lessened: they outlive every process, and
-- the rows that they count. `counted` is the last event that is in them. Events up to `seen` had been given their
-- numbers when `seen_xid` was the next transaction: once every older transaction has ended, none of them can still
-- appear.
CREATE TABLE notify.tally_mark (
    only_row boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    counted  bigint      NOT NULL DEFAULT 0,
    seen     bigint      NOT NULL DEFAULT 0,
    seen_xid xid8,
    seen_at  timestamptz NOT NULL DEFAULT 'epoch',
    at       timestamptz NOT NULL DEFAULT 'epoch'   -- `counted` holds all that there was then
);
INSERT INTO notify.tally_mark (only_row) VALUES (true);

-- Of a notification by itself `channel` is empty.
CREATE TABLE notify.tally (
    channel    text   NOT NULL,
    event_type text   NOT NULL,
    state      text   NOT NULL,
    value      bigint NOT NULL,
    PRIMARY KEY (channel, event_type, state)
);

-- How long it took until deliveries were sent, and delivered. `upto` is a bound in seconds, 'Infinity' for the last.
CREATE TABLE notify.tally_delay (
    state   text   NOT NULL,
    channel text   NOT NULL,
    lane    text   NOT NULL,
    upto    float8 NOT NULL,
    value   bigint NOT NULL,
    seconds float8 NOT NULL,   -- their sum
    PRIMARY KEY (state, channel, lane, upto)
);

-- The objective, minute by minute for the last hours.
CREATE TABLE notify.tally_minute (
    minute  timestamptz NOT NULL,
    lane    text        NOT NULL,
    sent    bigint      NOT NULL,
    in_time bigint      NOT NULL,
    PRIMARY KEY (minute, lane)
);
