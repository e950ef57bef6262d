-- What traces show beside steps, what a rerun edits, and the orders in which runs are listed.

-- What apps and people note about a run, a step, a try or a span: one row for each kind.
CREATE TABLE metadata (
    run_id TEXT NOT NULL,
    scope TEXT NOT NULL CHECK (scope IN ('run', 'step', 'step_attempt', 'extended_trace')),
    span TEXT NOT NULL,
    kind TEXT NOT NULL,
    "values" TEXT NOT NULL,
    updated_ms INTEGER NOT NULL,
    PRIMARY KEY (run_id, scope, span, kind)
) WITHOUT ROWID;

-- Spans of users' own code, as apps export them.
CREATE TABLE spans (
    run_id TEXT NOT NULL,
    id TEXT NOT NULL,
    parent_id TEXT NOT NULL,
    step_id TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('unset', 'ok', 'error')),
    message TEXT NOT NULL,
    attributes TEXT NOT NULL,
    started_ms INTEGER NOT NULL,
    ended_ms INTEGER NOT NULL,
    PRIMARY KEY (run_id, id)
) WITHOUT ROWID;

-- How much of both a run has, so that it stays within bounds.
CREATE TABLE trace_totals (
    run_id TEXT NOT NULL PRIMARY KEY,
    metadata_bytes INTEGER NOT NULL CHECK (metadata_bytes >= 0),
    spans INTEGER NOT NULL CHECK (spans >= 0),
    span_bytes INTEGER NOT NULL CHECK (span_bytes >= 0),
    spans_refused INTEGER NOT NULL CHECK (spans_refused >= 0)
) WITHOUT ROWID;

-- The input that a rerun gives a step in place of its own.
CREATE TABLE inputs (
    run_id TEXT NOT NULL,
    step_id TEXT NOT NULL,
    input TEXT NOT NULL,
    PRIMARY KEY (run_id, step_id)
) WITHOUT ROWID;

CREATE INDEX runs_started ON runs (started_ms, id) WHERE started_ms IS NOT NULL;
CREATE INDEX runs_ended ON runs (ended_ms, id) WHERE ended_ms IS NOT NULL;
