-- Values under keys of namespaces. A value may be 25 MiB: rows have a place of their own, and the index stays small.

CREATE TABLE kv (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    content_type TEXT NOT NULL CHECK (content_type IN ('json', 'text', 'bytes')),
    metadata TEXT,
    expires_ms INTEGER,
    PRIMARY KEY (namespace, key)
);

CREATE INDEX kv_by_end ON kv (expires_ms, namespace, key) WHERE expires_ms IS NOT NULL;
