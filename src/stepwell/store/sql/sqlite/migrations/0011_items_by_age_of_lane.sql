-- Waiting items lie by the age of their lane too: lanes are numbered as they are made, and the index of waiting items goes by that
-- number, so that those of today's keys share pages. An item has its lane's number from when it begins to wait; lanes without a row, a
-- function's own and those of paused runs, have 0.
CREATE TABLE lanes_numbered (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    function_id TEXT NOT NULL,
    keys TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('ready', 'shut', 'empty')),
    shut_by TEXT,
    tag INTEGER NOT NULL,
    shut_at INTEGER NOT NULL DEFAULT 0,
    CHECK ((shut_by IS NOT NULL) = (state = 'shut'))
);

INSERT INTO lanes_numbered (number, id, function_id, keys, state, shut_by, tag, shut_at)
SELECT rowid, id, function_id, keys, state, shut_by, tag, shut_at
FROM lanes;

DROP TABLE lanes;
ALTER TABLE lanes_numbered RENAME TO lanes;

CREATE INDEX lanes_ready ON lanes (function_id, tag, id) WHERE state = 'ready';
CREATE INDEX lanes_shut ON lanes (shut_by, shut_at DESC, tag, id) WHERE shut_by IS NOT NULL;
CREATE INDEX lanes_shut_of ON lanes (function_id, id) WHERE state = 'shut';
CREATE INDEX lanes_empty ON lanes (tag, id) WHERE state = 'empty';

DROP INDEX items_of_lane;
ALTER TABLE items ADD COLUMN lane_number INTEGER NOT NULL DEFAULT 0;
UPDATE items
SET lane_number = lanes.number
FROM lanes
WHERE lanes.id = items.lane_id;

CREATE INDEX items_of_lane ON items (lane_number, lane_id, starts, order_ms, id) WHERE holder IS NULL;
