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
