-- Actors: who has one in memory, its alarm, and what it has stored.

CREATE TABLE actors (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    fence INTEGER NOT NULL,
    holder TEXT,
    written INTEGER NOT NULL CHECK (written >= 0),
    generation INTEGER NOT NULL CHECK (generation >= 0),
    entries INTEGER NOT NULL CHECK (entries >= 0),
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    alarm_ms INTEGER,
    alarm_retry INTEGER NOT NULL,
    firing TEXT,
    fired_ms INTEGER,
    fired_retry INTEGER NOT NULL,
    firings INTEGER NOT NULL,
    error TEXT,
    PRIMARY KEY (kind, name),
    CHECK (firing IS NOT NULL OR fired_ms IS NULL)
) WITHOUT ROWID;

-- The alarms that a node runs, for the end of its epoch.
CREATE INDEX actors_firing ON actors (firing, kind, name) WHERE firing IS NOT NULL;

-- Pages of a list by when an alarm is due.
CREATE INDEX actors_alarm ON actors (kind, alarm_ms, name) WHERE alarm_ms IS NOT NULL;

-- Read in the order of the keys, by one actor at a time.
CREATE TABLE actor_entries (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    generation INTEGER NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (kind, name, generation, key)
) WITHOUT ROWID;
