-- The zone in which a delivery's templates show times: beside its locale, as both were when it was planned.
ALTER TABLE notify.delivery ADD COLUMN timezone text;
