-- Statements by key, one of each kind a table. `:rows` stands for as many groups of placeholders as there are rows;
-- `:keys` is a JSON array. Updates name the columns that may change.

-- name: insert_events
-- New events.
INSERT INTO events (id, key, name, data, user, ts, v, meta, received_ms, run_id, receipts)
VALUES :rows;

-- name: update_events (id, receipts)
-- What may change of events.
UPDATE events
SET receipts = changed.column2
FROM (VALUES :rows) AS changed
WHERE events.id = changed.column1;

-- name: delete_events
-- Events that go.
DELETE FROM events
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: select_events
-- Events by key.
SELECT id, key, name, data, user, ts, v, meta, received_ms, run_id, receipts
FROM events
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: insert_dedups
-- New dedup rows.
INSERT INTO dedups (function_id, event_key, run_id, expires_ms)
VALUES :rows;

-- name: update_dedups (function_id, event_key, run_id, expires_ms)
-- What may change of dedup rows.
UPDATE dedups
SET run_id = changed.column3,
    expires_ms = changed.column4
FROM (VALUES :rows) AS changed
WHERE dedups.function_id = changed.column1
  AND dedups.event_key = changed.column2;

-- name: delete_dedups
-- Dedup rows that go.
DELETE FROM dedups
WHERE (function_id, event_key) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: select_dedups
-- Dedup rows by key.
SELECT function_id, event_key, run_id, expires_ms
FROM dedups
WHERE (function_id, event_key) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: insert_apps
-- New apps.
INSERT INTO apps (name, id, driver, url, sdk, framework, checksum, synced_ms, archived)
VALUES :rows;

-- name: update_apps (name, id, driver, url, sdk, framework, checksum, synced_ms, archived)
-- What may change of apps.
UPDATE apps
SET id = changed.column2,
    driver = changed.column3,
    url = changed.column4,
    sdk = changed.column5,
    framework = changed.column6,
    checksum = changed.column7,
    synced_ms = changed.column8,
    archived = changed.column9
FROM (VALUES :rows) AS changed
WHERE apps.name = changed.column1;

-- name: delete_apps
-- Apps that go.
DELETE FROM apps
WHERE name IN (SELECT value FROM json_each(:keys));

-- name: select_apps
-- Apps by key.
SELECT name, id, driver, url, sdk, framework, checksum, synced_ms, archived
FROM apps
WHERE name IN (SELECT value FROM json_each(:keys));

-- name: insert_functions
-- New functions.
INSERT INTO functions (id, uuid, app_name, name, config, version, keyed, paused, archived, draining, override, rekeyed)
VALUES :rows;

-- name: update_functions (id, uuid, app_name, name, config, version, keyed, paused, archived, draining, override, rekeyed)
-- What may change of functions.
UPDATE functions
SET uuid = changed.column2,
    app_name = changed.column3,
    name = changed.column4,
    config = changed.column5,
    version = changed.column6,
    keyed = changed.column7,
    paused = changed.column8,
    archived = changed.column9,
    draining = changed.column10,
    override = changed.column11,
    rekeyed = changed.column12
FROM (VALUES :rows) AS changed
WHERE functions.id = changed.column1;

-- name: delete_functions
-- Functions that go.
DELETE FROM functions
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: select_functions
-- Functions by key.
SELECT id, uuid, app_name, name, config, version, keyed, paused, archived, draining, override, rekeyed
FROM functions
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: insert_runs
-- New runs.
INSERT INTO runs (id, function_id, function_version, app_name, event_ids, status, cause, origin, lane_id, keys, order_ms, created_ms, started_ms, ended_ms, request_version, force_plan, pending, pending_key, steps, finished, state_bytes, calls, waits, output, reason, guarded, defers, held)
VALUES :rows;

-- name: update_runs (id, status, started_ms, ended_ms, request_version, force_plan, pending, pending_key, steps, finished, state_bytes, calls, waits, output, reason, defers, held)
-- What may change of runs.
UPDATE runs
SET status = changed.column2,
    started_ms = changed.column3,
    ended_ms = changed.column4,
    request_version = changed.column5,
    force_plan = changed.column6,
    pending = changed.column7,
    pending_key = changed.column8,
    steps = changed.column9,
    finished = changed.column10,
    state_bytes = changed.column11,
    calls = changed.column12,
    waits = changed.column13,
    output = changed.column14,
    reason = changed.column15,
    defers = changed.column16,
    held = changed.column17
FROM (VALUES :rows) AS changed
WHERE runs.id = changed.column1;

-- name: delete_runs
-- Runs that go.
DELETE FROM runs
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: select_runs
-- Runs by key.
SELECT id, function_id, function_version, app_name, event_ids, status, cause, origin, lane_id, keys, order_ms, created_ms, started_ms, ended_ms, request_version, force_plan, pending, pending_key, steps, finished, state_bytes, calls, waits, output, reason, guarded, defers, held
FROM runs
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: insert_steps
-- New steps.
INSERT INTO steps (run_id, id, op, name, user_id, "index", status, opts, memo, attempts, queued_ms, started_ms, ended_ms, position, ref)
VALUES :rows;

-- name: update_steps (run_id, id, status, memo, attempts, started_ms, ended_ms, position, ref)
-- What may change of steps.
UPDATE steps
SET status = changed.column3,
    memo = changed.column4,
    attempts = changed.column5,
    started_ms = changed.column6,
    ended_ms = changed.column7,
    position = changed.column8,
    ref = changed.column9
FROM (VALUES :rows) AS changed
WHERE steps.run_id = changed.column1
  AND steps.id = changed.column2;

-- name: delete_steps
-- Steps that go.
DELETE FROM steps
WHERE (run_id, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: select_steps
-- Steps by key. Without memo: decisions need only know that it ended.
SELECT run_id, id, op, name, user_id, "index", status, opts, NULL, attempts, queued_ms, started_ms, ended_ms, position, ref
FROM steps
WHERE (run_id, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: insert_attempts
-- New attempts.
INSERT INTO attempts (id, run_id, step_id, attempt, kind, started_ms, ended_ms, error, worker)
VALUES :rows;

-- name: delete_attempts
-- Attempts that go.
DELETE FROM attempts
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: select_attempts
-- Attempts by key.
SELECT id, run_id, step_id, attempt, kind, started_ms, ended_ms, error, worker
FROM attempts
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: insert_items
-- New items, with the number of their lane, which is written before them.
INSERT INTO items (
    id, run_id, function_id, lane_id, keys, starts, order_ms, step_id, attempt, fence, losses, holder, leased_ms, lane_number
)
SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9, column10, column11, column12, column13,
    coalesce((SELECT lanes.number FROM lanes WHERE lanes.id = column4), 0)
FROM (VALUES :rows);

-- name: update_items (id, attempt, fence, losses, holder, leased_ms, starts, lane_id)
-- What may change of items. One that begins to wait takes its lane's number anew: the lane's row may be another by then.
UPDATE items
SET attempt = changed.column2,
    fence = changed.column3,
    losses = changed.column4,
    holder = changed.column5,
    leased_ms = changed.column6,
    starts = changed.column7,
    lane_id = changed.column8,
    lane_number = CASE
        WHEN changed.column5 IS NULL THEN coalesce((SELECT lanes.number FROM lanes WHERE lanes.id = changed.column8), 0)
        ELSE lane_number
    END
FROM (VALUES :rows) AS changed
WHERE items.id = changed.column1;

-- name: delete_items
-- Items that go.
DELETE FROM items
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: select_items
-- Items by key.
SELECT id, run_id, function_id, lane_id, keys, starts, order_ms, step_id, attempt, fence, losses, holder, leased_ms
FROM items
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: insert_lanes
-- New lanes.
INSERT INTO lanes (id, function_id, keys, state, shut_by, tag, shut_at)
VALUES :rows;

-- name: update_lanes (id, state, shut_by, tag, shut_at)
-- What may change of lanes.
UPDATE lanes
SET state = changed.column2,
    shut_by = changed.column3,
    tag = changed.column4,
    shut_at = changed.column5
FROM (VALUES :rows) AS changed
WHERE lanes.id = changed.column1;

-- name: delete_lanes
-- Lanes that go.
DELETE FROM lanes
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: select_lanes
-- Lanes by key.
SELECT id, function_id, keys, state, shut_by, tag, shut_at
FROM lanes
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: insert_counters
-- New counters.
INSERT INTO counters (id, running)
VALUES :rows;

-- name: update_counters (id, running)
-- What may change of counters.
UPDATE counters
SET running = changed.column2
FROM (VALUES :rows) AS changed
WHERE counters.id = changed.column1;

-- name: delete_counters
-- Counters that go.
DELETE FROM counters
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: select_counters
-- Counters by key.
SELECT id, running
FROM counters
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: insert_clocks
-- New fair clocks.
INSERT INTO clocks (function_id, virtual)
VALUES :rows;

-- name: update_clocks (function_id, virtual)
-- What may change of fair clocks.
UPDATE clocks
SET virtual = changed.column2
FROM (VALUES :rows) AS changed
WHERE clocks.function_id = changed.column1;

-- name: delete_clocks
-- Fair clocks that go.
DELETE FROM clocks
WHERE function_id IN (SELECT value FROM json_each(:keys));

-- name: select_clocks
-- Fair clocks by key.
SELECT function_id, virtual
FROM clocks
WHERE function_id IN (SELECT value FROM json_each(:keys));

-- name: insert_timers
-- New timers.
INSERT INTO timers (id, due_ms, kind, run_id, ref, after, item)
VALUES :rows;

-- name: update_timers (id, due_ms, ref, after, item)
-- What may change of timers.
UPDATE timers
SET due_ms = changed.column2,
    ref = changed.column3,
    after = changed.column4,
    item = changed.column5
FROM (VALUES :rows) AS changed
WHERE timers.id = changed.column1;

-- name: delete_timers
-- Timers that go.
DELETE FROM timers
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: select_timers
-- Timers by key.
SELECT id, due_ms, kind, run_id, ref, after, item
FROM timers
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: insert_holders
-- New holders.
INSERT INTO holders (id, node_id, renewed_ms)
VALUES :rows;

-- name: update_holders (id, renewed_ms)
-- What may change of holders.
UPDATE holders
SET renewed_ms = changed.column2
FROM (VALUES :rows) AS changed
WHERE holders.id = changed.column1;

-- name: delete_holders
-- Holders that go.
DELETE FROM holders
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: select_holders
-- Holders by key.
SELECT id, node_id, renewed_ms
FROM holders
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: insert_set_aside
-- New inputs set aside.
INSERT INTO set_aside (id, input, error, run_id, created_ms)
VALUES :rows;

-- name: delete_set_aside
-- Inputs set aside that go.
DELETE FROM set_aside
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: select_set_aside
-- Inputs set aside by key.
SELECT id, input, error, run_id, created_ms
FROM set_aside
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: insert_topics
-- New topics.
INSERT INTO topics (name, paths, serial)
VALUES :rows;

-- name: update_topics (name, paths, serial)
-- What may change of topics.
UPDATE topics
SET paths = changed.column2,
    serial = changed.column3
FROM (VALUES :rows) AS changed
WHERE topics.name = changed.column1;

-- name: delete_topics
-- Topics that go.
DELETE FROM topics
WHERE name IN (SELECT value FROM json_each(:keys));

-- name: select_topics
-- Topics by key.
SELECT name, paths, serial
FROM topics
WHERE name IN (SELECT value FROM json_each(:keys));

-- name: insert_waits
-- New waits.
INSERT INTO waits (run_id, id, name, lookup, serial, "where", event, expires_ms)
VALUES :rows;

-- name: delete_waits
-- Waits that go.
DELETE FROM waits
WHERE (run_id, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: select_waits
-- Waits by key.
SELECT run_id, id, name, lookup, serial, "where", event, expires_ms
FROM waits
WHERE (run_id, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: insert_names
-- New names.
INSERT INTO names (id, run_id, ref)
VALUES :rows;

-- name: update_names (id, run_id, ref)
-- What may change of names.
UPDATE names
SET run_id = changed.column2,
    ref = changed.column3
FROM (VALUES :rows) AS changed
WHERE names.id = changed.column1;

-- name: delete_names
-- Names that go.
DELETE FROM names
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: select_names
-- Names by key.
SELECT id, run_id, ref
FROM names
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: insert_schedules
-- New schedules.
INSERT INTO schedules (function_id, cron, fired_ms)
VALUES :rows;

-- name: update_schedules (function_id, cron, fired_ms)
-- What may change of schedules.
UPDATE schedules
SET fired_ms = changed.column3
FROM (VALUES :rows) AS changed
WHERE schedules.function_id = changed.column1
  AND schedules.cron = changed.column2;

-- name: delete_schedules
-- Schedules that go.
DELETE FROM schedules
WHERE (function_id, cron) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: select_schedules
-- Schedules by key.
SELECT function_id, cron, fired_ms
FROM schedules
WHERE (function_id, cron) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: insert_cancellations
-- New cancellations.
INSERT INTO cancellations (id, app_name, function_id, after_ms, before_ms, "where", created_ms)
VALUES :rows;

-- name: delete_cancellations
-- Cancellations that go.
DELETE FROM cancellations
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: select_cancellations
-- Cancellations by key.
SELECT id, app_name, function_id, after_ms, before_ms, "where", created_ms
FROM cancellations
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: insert_rates
-- New rates.
INSERT INTO rates (id, used, until_us)
VALUES :rows;

-- name: update_rates (id, used, until_us)
-- What may change of rates.
UPDATE rates
SET used = changed.column2,
    until_us = changed.column3
FROM (VALUES :rows) AS changed
WHERE rates.id = changed.column1;

-- name: delete_rates
-- Rates that go.
DELETE FROM rates
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: select_rates
-- Rates by key.
SELECT id, used, until_us
FROM rates
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: insert_holds
-- New open batches and debounces.
INSERT INTO holds (id, function_id, events, keys, first_ms, due_ms, ts, size)
VALUES :rows;

-- name: update_holds (id, events, due_ms, ts, size)
-- What may change of open batches and debounces.
UPDATE holds
SET events = changed.column2,
    due_ms = changed.column3,
    ts = changed.column4,
    size = changed.column5
FROM (VALUES :rows) AS changed
WHERE holds.id = changed.column1;

-- name: delete_holds
-- Open batches and debounces that go.
DELETE FROM holds
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: select_holds
-- Open batches and debounces by key.
SELECT id, function_id, events, keys, first_ms, due_ms, ts, size
FROM holds
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: insert_members
-- New events of batches.
INSERT INTO members (event_id, run_id)
VALUES :rows;

-- name: delete_members
-- Events of batches that go.
DELETE FROM members
WHERE (event_id, run_id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: select_members
-- Events of batches by key.
SELECT event_id, run_id
FROM members
WHERE (event_id, run_id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: insert_metadata
-- New metadata.
INSERT INTO metadata (run_id, scope, span, kind, "values", updated_ms)
VALUES :rows;

-- name: update_metadata (run_id, scope, span, kind, values, updated_ms)
-- What may change of metadata.
UPDATE metadata
SET "values" = changed.column5,
    updated_ms = changed.column6
FROM (VALUES :rows) AS changed
WHERE metadata.run_id = changed.column1
  AND metadata.scope = changed.column2
  AND metadata.span = changed.column3
  AND metadata.kind = changed.column4;

-- name: delete_metadata
-- Metadata that goes.
DELETE FROM metadata
WHERE (run_id, scope, span, kind) IN (SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(:keys));

-- name: select_metadata
-- Metadata by key.
SELECT run_id, scope, span, kind, "values", updated_ms
FROM metadata
WHERE (run_id, scope, span, kind) IN (SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(:keys));

-- name: insert_spans
-- New spans.
INSERT INTO spans (run_id, id, parent_id, step_id, name, kind, status, message, attributes, started_ms, ended_ms)
VALUES :rows;

-- name: delete_spans
-- Spans that go.
DELETE FROM spans
WHERE (run_id, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: select_spans
-- Spans by key.
SELECT run_id, id, parent_id, step_id, name, kind, status, message, attributes, started_ms, ended_ms
FROM spans
WHERE (run_id, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: insert_trace_totals
-- New totals.
INSERT INTO trace_totals (run_id, metadata_bytes, spans, span_bytes, spans_refused)
VALUES :rows;

-- name: update_trace_totals (run_id, metadata_bytes, spans, span_bytes, spans_refused)
-- What may change of totals.
UPDATE trace_totals
SET metadata_bytes = changed.column2,
    spans = changed.column3,
    span_bytes = changed.column4,
    spans_refused = changed.column5
FROM (VALUES :rows) AS changed
WHERE trace_totals.run_id = changed.column1;

-- name: delete_trace_totals
-- Totals that go.
DELETE FROM trace_totals
WHERE run_id IN (SELECT value FROM json_each(:keys));

-- name: select_trace_totals
-- Totals by key.
SELECT run_id, metadata_bytes, spans, span_bytes, spans_refused
FROM trace_totals
WHERE run_id IN (SELECT value FROM json_each(:keys));

-- name: insert_inputs
-- New inputs.
INSERT INTO inputs (run_id, step_id, input)
VALUES :rows;

-- name: delete_inputs
-- Inputs that go.
DELETE FROM inputs
WHERE (run_id, step_id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: select_inputs
-- Inputs by key.
SELECT run_id, step_id, input
FROM inputs
WHERE (run_id, step_id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: insert_defers
-- New defers.
INSERT INTO defers (run_id, id, name, function_id, status, input, meta, reason, created_ms)
VALUES :rows;

-- name: update_defers (run_id, id, status)
-- What may change of defers.
UPDATE defers
SET status = changed.column3
FROM (VALUES :rows) AS changed
WHERE defers.run_id = changed.column1
  AND defers.id = changed.column2;

-- name: delete_defers
-- Defers that go.
DELETE FROM defers
WHERE (run_id, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: select_defers
-- Defers by key.
SELECT run_id, id, name, function_id, status, input, meta, reason, created_ms
FROM defers
WHERE (run_id, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: insert_queues
-- New queues.
INSERT INTO queues (id, paused, waiting, waiting_bytes, retention_ms, visibility_ms, max_retries, dead_letter)
VALUES :rows;

-- name: update_queues (id, paused, waiting, waiting_bytes, retention_ms, visibility_ms, max_retries, dead_letter)
-- What may change of queues.
UPDATE queues
SET paused = changed.column2,
    waiting = changed.column3,
    waiting_bytes = changed.column4,
    retention_ms = changed.column5,
    visibility_ms = changed.column6,
    max_retries = changed.column7,
    dead_letter = changed.column8
FROM (VALUES :rows) AS changed
WHERE queues.id = changed.column1;

-- name: delete_queues
-- Queues that go.
DELETE FROM queues
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: select_queues
-- Queues by key.
SELECT id, paused, waiting, waiting_bytes, retention_ms, visibility_ms, max_retries, dead_letter
FROM queues
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: insert_messages
-- New messages.
INSERT INTO messages (id, queue, ready_ms, sent_ms, content_type, body, attempts, losses, pulled, delivery, dead_of, error)
VALUES :rows;

-- name: update_messages (id, queue, ready_ms, attempts, losses, pulled, delivery, dead_of, error)
-- What may change of messages: never their bodies.
UPDATE messages
SET queue = changed.column2,
    ready_ms = changed.column3,
    attempts = changed.column4,
    losses = changed.column5,
    pulled = changed.column6,
    delivery = changed.column7,
    dead_of = changed.column8,
    error = changed.column9
FROM (VALUES :rows) AS changed
WHERE messages.id = changed.column1;

-- name: delete_messages
-- Messages that go.
DELETE FROM messages
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: select_messages
-- Messages by key.
SELECT id, queue, ready_ms, sent_ms, content_type, body, attempts, losses, pulled, delivery, dead_of, error
FROM messages
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: insert_deliveries
-- New deliveries.
INSERT INTO deliveries (id, queue, function_id, holder, messages, leased_ms)
VALUES :rows;

-- name: delete_deliveries
-- Deliveries that go.
DELETE FROM deliveries
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: select_deliveries
-- Deliveries by key.
SELECT id, queue, function_id, holder, messages, leased_ms
FROM deliveries
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: insert_kv
-- New values under keys.
INSERT INTO kv (namespace, key, value, content_type, metadata, expires_ms)
VALUES :rows;

-- name: update_kv (namespace, key, value, content_type, metadata, expires_ms)
-- Values that take the place of others.
UPDATE kv
SET value = changed.column3,
    content_type = changed.column4,
    metadata = changed.column5,
    expires_ms = changed.column6
FROM (VALUES :rows) AS changed
WHERE kv.namespace = changed.column1
  AND kv.key = changed.column2;

-- name: delete_kv
-- Values that go.
DELETE FROM kv
WHERE (namespace, key) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: select_kv
-- Values by key.
SELECT namespace, key, value, content_type, metadata, expires_ms
FROM kv
WHERE (namespace, key) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: insert_actors
-- New actors.
INSERT INTO actors (kind, name, fence, holder, written, generation, entries, bytes, alarm_ms, alarm_retry, firing, fired_ms, fired_retry, firings, error)
VALUES :rows;

-- name: update_actors (kind, name, fence, holder, written, generation, entries, bytes, alarm_ms, alarm_retry, firing, fired_ms, fired_retry, firings, error)
-- What may change of actors.
UPDATE actors
SET fence = changed.column3,
    holder = changed.column4,
    written = changed.column5,
    generation = changed.column6,
    entries = changed.column7,
    bytes = changed.column8,
    alarm_ms = changed.column9,
    alarm_retry = changed.column10,
    firing = changed.column11,
    fired_ms = changed.column12,
    fired_retry = changed.column13,
    firings = changed.column14,
    error = changed.column15
FROM (VALUES :rows) AS changed
WHERE actors.kind = changed.column1
  AND actors.name = changed.column2;

-- name: delete_actors
-- Actors that go.
DELETE FROM actors
WHERE (kind, name) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: select_actors
-- Actors by key.
SELECT kind, name, fence, holder, written, generation, entries, bytes, alarm_ms, alarm_retry, firing, fired_ms, fired_retry, firings, error
FROM actors
WHERE (kind, name) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:keys));

-- name: insert_actor_entries
-- New entries.
INSERT INTO actor_entries (kind, name, generation, key, value)
VALUES :rows;

-- name: update_actor_entries (kind, name, generation, key, value)
-- What may change of entries.
UPDATE actor_entries
SET value = changed.column5
FROM (VALUES :rows) AS changed
WHERE actor_entries.kind = changed.column1
  AND actor_entries.name = changed.column2
  AND actor_entries.generation = changed.column3
  AND actor_entries.key = changed.column4;

-- name: delete_actor_entries
-- Entries that go.
DELETE FROM actor_entries
WHERE (kind, name, generation, key) IN (SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(:keys));

-- name: select_actor_entries
-- Entries by key.
SELECT kind, name, generation, key, value
FROM actor_entries
WHERE (kind, name, generation, key) IN (SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(:keys));
