-- An address may be longer than a btree's entry (some 2,700 bytes): a push token has up to 4,096 characters. Such a
-- row was refused with SQLSTATE 54000, so what is unique, and looked up, is the digest. It guards nothing.
ALTER TABLE notify.contact_point
    DROP CONSTRAINT contact_point_pkey,
    ADD COLUMN digest text NOT NULL GENERATED ALWAYS AS (md5(address)) STORED,
    ADD PRIMARY KEY (tenant, recipient_id, channel, digest);
ALTER TABLE notify.suppression
    DROP CONSTRAINT suppression_pkey,
    ADD COLUMN digest text NOT NULL GENERATED ALWAYS AS (md5(address)) STORED,
    ADD PRIMARY KEY (tenant, channel, digest);

-- Lists of recipients are read page by page and by how an id begins, in the order of bytes.
CREATE INDEX recipient_page ON notify.recipient (tenant, id COLLATE "C");

-- What erasing one person looks for.
CREATE INDEX delivery_recipient ON notify.delivery (tenant, recipient_id) WHERE recipient_id IS NOT NULL;
CREATE INDEX notification_envelope ON notify.notification USING gin ((envelope -> 'to') jsonb_path_ops)
    WHERE envelope IS NOT NULL;
