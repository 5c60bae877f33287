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
