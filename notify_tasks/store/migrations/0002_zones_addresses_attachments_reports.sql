-- One step for one release: zones of deliveries, longer addresses, attachments, and what workers report of themselves.

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
