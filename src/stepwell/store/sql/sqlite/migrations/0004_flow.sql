-- Flow control over time: throttles and rate limits, open batches and debounces; what a person changes of a function.

ALTER TABLE functions ADD COLUMN draining INTEGER NOT NULL DEFAULT 0 CHECK (draining IN (0, 1));
ALTER TABLE functions ADD COLUMN override TEXT;

-- A key over time: a throttle's theoretical arrival time, or the places used of a rate limit's window and its end.
CREATE TABLE rates (
    id TEXT NOT NULL PRIMARY KEY,
    used INTEGER NOT NULL CHECK (used >= 0),
    until_us INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX rates_by_end ON rates (until_us, id);

-- Events that wait for others before their run is made.
CREATE TABLE holds (
    id TEXT NOT NULL PRIMARY KEY,
    function_id TEXT NOT NULL,
    events TEXT NOT NULL,
    keys TEXT NOT NULL,
    first_ms INTEGER NOT NULL,
    due_ms INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    size INTEGER NOT NULL
) WITHOUT ROWID;

-- Which run a batched event belongs to; a batch's first event is found by the run itself.
CREATE TABLE members (
    event_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    PRIMARY KEY (event_id, run_id)
) WITHOUT ROWID;

ALTER TABLE lanes ADD COLUMN shut_at INTEGER NOT NULL DEFAULT 0;

DROP INDEX lanes_shut;
CREATE INDEX lanes_shut ON lanes (shut_by, shut_at DESC, tag, id) WHERE shut_by IS NOT NULL;
CREATE INDEX lanes_shut_of ON lanes (function_id, id) WHERE state = 'shut';
CREATE INDEX dedups_by_end ON dedups (expires_ms, function_id, event_key);
