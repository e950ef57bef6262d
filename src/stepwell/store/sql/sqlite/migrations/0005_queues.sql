-- Queues: their state, their messages, and the batches that are out.

CREATE TABLE queues (
    id TEXT NOT NULL PRIMARY KEY,
    paused INTEGER NOT NULL CHECK (paused IN (0, 1)),
    waiting INTEGER NOT NULL CHECK (waiting >= 0),
    waiting_bytes INTEGER NOT NULL CHECK (waiting_bytes >= 0),
    retention_ms INTEGER NOT NULL,
    visibility_ms INTEGER NOT NULL,
    max_retries INTEGER NOT NULL,
    dead_letter TEXT NOT NULL
) WITHOUT ROWID;

-- Bodies are up to 128 kB, so that rows have a place of their own and the indexes stay small.
CREATE TABLE messages (
    id TEXT NOT NULL UNIQUE,
    queue TEXT NOT NULL,
    ready_ms INTEGER NOT NULL,
    sent_ms INTEGER NOT NULL,
    content_type TEXT NOT NULL CHECK (content_type IN ('json', 'text', 'bytes')),
    body BLOB NOT NULL,
    attempts INTEGER NOT NULL CHECK (attempts >= 0),
    losses INTEGER NOT NULL CHECK (losses >= 0),
    pulled INTEGER NOT NULL CHECK (pulled IN (0, 1)),
    delivery TEXT,
    dead_of TEXT,
    error TEXT
);

CREATE INDEX messages_waiting ON messages (queue, ready_ms, id) WHERE delivery IS NULL;

CREATE TABLE deliveries (
    id TEXT NOT NULL PRIMARY KEY,
    queue TEXT NOT NULL,
    function_id TEXT NOT NULL,
    holder TEXT NOT NULL,
    messages TEXT NOT NULL,
    leased_ms INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX deliveries_by_holder ON deliveries (holder, id);
