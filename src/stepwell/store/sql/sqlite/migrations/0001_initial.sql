-- The first schema. States are text with CHECK, times milliseconds since the epoch, JSON only for users' payloads and small lists.

-- What users sent, and lifecycle events, which refer to a run and have no body of their own.
CREATE TABLE events (
    id TEXT NOT NULL PRIMARY KEY,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    data TEXT NOT NULL,
    user TEXT NOT NULL,
    ts INTEGER NOT NULL,
    v TEXT,
    meta TEXT,
    received_ms INTEGER NOT NULL,
    run_id TEXT
) WITHOUT ROWID;

-- One run per function and event key, for a day.
CREATE TABLE dedups (
    function_id TEXT NOT NULL,
    event_key TEXT NOT NULL,
    run_id TEXT NOT NULL,
    expires_ms INTEGER NOT NULL,
    PRIMARY KEY (function_id, event_key)
) WITHOUT ROWID;

-- Apps and functions as last synced.
CREATE TABLE apps (
    name TEXT NOT NULL PRIMARY KEY,
    id TEXT NOT NULL,
    driver TEXT NOT NULL,
    url TEXT NOT NULL,
    sdk TEXT NOT NULL,
    framework TEXT NOT NULL,
    checksum TEXT NOT NULL,
    synced_ms INTEGER NOT NULL,
    archived INTEGER NOT NULL CHECK (archived IN (0, 1))
) WITHOUT ROWID;

CREATE TABLE functions (
    id TEXT NOT NULL PRIMARY KEY,
    uuid TEXT NOT NULL,
    app_name TEXT NOT NULL,
    name TEXT NOT NULL,
    config TEXT NOT NULL,
    version INTEGER NOT NULL,
    keyed INTEGER NOT NULL CHECK (keyed IN (0, 1)),
    paused INTEGER NOT NULL CHECK (paused IN (0, 1)),
    archived INTEGER NOT NULL CHECK (archived IN (0, 1))
) WITHOUT ROWID;

-- Runs. An ended run has its end's time and neither items nor timers count for it; a live one has at least one of them.
CREATE TABLE runs (
    id TEXT NOT NULL PRIMARY KEY,
    function_id TEXT NOT NULL,
    function_version INTEGER NOT NULL,
    app_name TEXT NOT NULL,
    event_ids TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('queued', 'running', 'waiting', 'completed', 'failed', 'cancelled', 'skipped')),
    cause TEXT NOT NULL CHECK (cause IN ('event', 'rerun', 'lifecycle', 'invoke', 'cron')),
    origin TEXT,
    lane_id TEXT NOT NULL,
    keys TEXT NOT NULL,
    order_ms INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    started_ms INTEGER,
    ended_ms INTEGER,
    request_version INTEGER NOT NULL,
    force_plan INTEGER NOT NULL CHECK (force_plan IN (0, 1)),
    pending TEXT NOT NULL,
    pending_key TEXT NOT NULL,
    steps INTEGER NOT NULL CHECK (steps >= 0),
    finished INTEGER NOT NULL CHECK (finished >= 0),
    state_bytes INTEGER NOT NULL CHECK (state_bytes >= 0),
    calls INTEGER NOT NULL CHECK (calls >= 0),
    waits INTEGER NOT NULL CHECK (waits >= 0),
    output TEXT,
    reason TEXT,
    guarded INTEGER NOT NULL CHECK (guarded IN (0, 1)),
    first_event_id TEXT GENERATED ALWAYS AS (event_ids ->> 0) VIRTUAL,
    CHECK ((ended_ms IS NOT NULL) = (status IN ('completed', 'failed', 'cancelled', 'skipped'))),
    CHECK ((ended_ms IS NOT NULL) = (calls + waits = 0))
) WITHOUT ROWID;

CREATE INDEX runs_by_event ON runs (first_event_id, id);
CREATE INDEX runs_by_function ON runs (function_id, id);
CREATE INDEX runs_live ON runs (function_id, id) WHERE ended_ms IS NULL;
CREATE INDEX runs_unhappy ON runs (status, id) WHERE status IN ('failed', 'cancelled');

-- Steps, with what the app is sent for them. The row is also the reservation that keeps a step from being enqueued twice.
CREATE TABLE steps (
    run_id TEXT NOT NULL,
    id TEXT NOT NULL,
    op TEXT NOT NULL,
    name TEXT NOT NULL,
    user_id TEXT NOT NULL,
    "index" INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('planned', 'running', 'waiting', 'completed', 'failed')),
    opts TEXT,
    memo TEXT,
    attempts INTEGER NOT NULL,
    queued_ms INTEGER NOT NULL,
    started_ms INTEGER,
    ended_ms INTEGER,
    position INTEGER NOT NULL,
    ref TEXT,
    PRIMARY KEY (run_id, id),
    CHECK ((memo IS NOT NULL) = (status IN ('completed', 'failed')))
) WITHOUT ROWID;

-- Tries that failed or were lost. The id begins with the run's.
CREATE TABLE attempts (
    id TEXT NOT NULL PRIMARY KEY,
    run_id TEXT NOT NULL,
    step_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('failed', 'lost')),
    started_ms INTEGER NOT NULL,
    ended_ms INTEGER NOT NULL,
    error TEXT NOT NULL,
    worker TEXT NOT NULL
) WITHOUT ROWID;

-- Ready and leased work. The id begins with the run's.
CREATE TABLE items (
    id TEXT NOT NULL PRIMARY KEY,
    run_id TEXT NOT NULL,
    function_id TEXT NOT NULL,
    lane_id TEXT NOT NULL,
    keys TEXT NOT NULL,
    starts INTEGER NOT NULL CHECK (starts IN (0, 1)),
    order_ms INTEGER NOT NULL,
    step_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    fence INTEGER NOT NULL CHECK (fence >= 0),
    losses INTEGER NOT NULL,
    holder TEXT,
    leased_ms INTEGER
) WITHOUT ROWID;

CREATE INDEX items_of_lane ON items (lane_id, starts, order_ms, id) WHERE holder IS NULL;
CREATE INDEX items_of_holder ON items (holder, id) WHERE holder IS NOT NULL;

-- Items that share every gating key share a lane.
CREATE TABLE lanes (
    id TEXT NOT NULL PRIMARY KEY,
    function_id TEXT NOT NULL,
    keys TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('ready', 'shut', 'empty')),
    shut_by TEXT,
    tag INTEGER NOT NULL,
    CHECK ((shut_by IS NOT NULL) = (state = 'shut'))
) WITHOUT ROWID;

CREATE INDEX lanes_ready ON lanes (function_id, tag, id) WHERE state = 'ready';
CREATE INDEX lanes_shut ON lanes (shut_by, tag, id) WHERE shut_by IS NOT NULL;

CREATE TABLE counters (
    id TEXT NOT NULL PRIMARY KEY,
    running INTEGER NOT NULL CHECK (running > 0)
) WITHOUT ROWID;

CREATE TABLE clocks (
    function_id TEXT NOT NULL PRIMARY KEY,
    virtual INTEGER NOT NULL
) WITHOUT ROWID;

-- Everything due. The id says kind and subject, so that those of a run are found by range.
CREATE TABLE timers (
    id TEXT NOT NULL PRIMARY KEY,
    due_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    run_id TEXT,
    ref TEXT NOT NULL,
    after TEXT NOT NULL,
    item TEXT
) WITHOUT ROWID;

CREATE INDEX timers_due ON timers (due_ms, id);

-- Runs that an event may resume or end, found by a lookup key; the paths in use and the count of waits by event name.
CREATE TABLE topics (
    name TEXT NOT NULL PRIMARY KEY,
    paths TEXT NOT NULL,
    serial INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE waits (
    run_id TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    lookup TEXT NOT NULL,
    serial INTEGER NOT NULL,
    "where" TEXT,
    event TEXT NOT NULL,
    expires_ms INTEGER NOT NULL,
    PRIMARY KEY (run_id, id)
) WITHOUT ROWID;

CREATE INDEX waits_by_lookup ON waits (lookup, serial);

-- Names that one run at a time may have.
CREATE TABLE names (
    id TEXT NOT NULL PRIMARY KEY,
    run_id TEXT NOT NULL,
    ref TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX names_of_run ON names (run_id);

-- Cron lines, each with the last tick that it fired.
CREATE TABLE schedules (
    function_id TEXT NOT NULL,
    cron TEXT NOT NULL,
    fired_ms INTEGER NOT NULL,
    PRIMARY KEY (function_id, cron)
) WITHOUT ROWID;

-- Bulk cancellations.
CREATE TABLE cancellations (
    id TEXT NOT NULL PRIMARY KEY,
    app_name TEXT NOT NULL,
    function_id TEXT NOT NULL,
    after_ms INTEGER,
    before_ms INTEGER NOT NULL,
    "where" TEXT,
    created_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- Nodes' epochs.
CREATE TABLE holders (
    id TEXT NOT NULL PRIMARY KEY,
    node_id TEXT NOT NULL,
    renewed_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- Inputs of the engine's own that raised.
CREATE TABLE set_aside (
    id TEXT NOT NULL PRIMARY KEY,
    input TEXT NOT NULL,
    error TEXT NOT NULL,
    run_id TEXT,
    created_ms INTEGER NOT NULL
) WITHOUT ROWID;
