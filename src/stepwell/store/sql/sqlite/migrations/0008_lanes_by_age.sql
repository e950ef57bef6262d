-- Lanes lie in the order in which they were made: those of today's keys share pages, however many older ones wait among their ids.
-- A claim rewrites the lanes that it takes from, and what it costs is the pages that it touches.
CREATE TABLE lanes_by_age (
    id TEXT NOT NULL UNIQUE,
    function_id TEXT NOT NULL,
    keys TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('ready', 'shut', 'empty')),
    shut_by TEXT,
    tag INTEGER NOT NULL,
    shut_at INTEGER NOT NULL DEFAULT 0,
    CHECK ((shut_by IS NOT NULL) = (state = 'shut'))
);

INSERT INTO lanes_by_age (id, function_id, keys, state, shut_by, tag, shut_at)
SELECT id, function_id, keys, state, shut_by, tag, shut_at
FROM lanes;

DROP TABLE lanes;
ALTER TABLE lanes_by_age RENAME TO lanes;

CREATE INDEX lanes_ready ON lanes (function_id, tag, id) WHERE state = 'ready';
CREATE INDEX lanes_shut ON lanes (shut_by, shut_at DESC, tag, id) WHERE shut_by IS NOT NULL;
CREATE INDEX lanes_shut_of ON lanes (function_id, id) WHERE state = 'shut';
CREATE INDEX lanes_empty ON lanes (tag, id) WHERE state = 'empty';
