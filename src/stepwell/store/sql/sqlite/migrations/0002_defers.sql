-- What runs want to have run after their end; a refused one has no input. A run counts its own.
CREATE TABLE defers (
    run_id TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    function_id TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('after_run', 'aborted', 'rejected', 'scheduled')),
    input TEXT,
    meta TEXT,
    reason TEXT,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (run_id, id),
    CHECK ((status = 'rejected') = (input IS NULL)),
    CHECK ((status = 'rejected') = (reason IS NOT NULL))
) WITHOUT ROWID;

ALTER TABLE runs ADD COLUMN defers INTEGER NOT NULL DEFAULT 0 CHECK (defers >= 0);
