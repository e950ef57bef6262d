-- The named scans of `engine/tables.py`, each on an index of its own order. SQLite has one writer, so no row locks are needed.

-- name: ready_lanes
-- A function's ready lanes, the least served first.
SELECT id, function_id, keys, state, shut_by, tag, shut_at
FROM lanes
WHERE function_id = :value
  AND state = 'ready'
ORDER BY tag, id
LIMIT :limit;

-- name: lane_items
-- The next items of one lane: what continues before what starts.
SELECT id, run_id, function_id, lane_id, keys, starts, order_ms, step_id, attempt, fence, losses, holder, leased_ms
FROM items
WHERE lane_number = coalesce((SELECT lanes.number FROM lanes WHERE lanes.id = :value), 0)
  AND lane_id = :value
  AND holder IS NULL
ORDER BY starts, order_ms, id
LIMIT :limit;

-- name: lane_items_many
-- The next items of several lanes, with the lane's place among those asked.
SELECT asked.key, items.id, run_id, function_id, lane_id, keys, starts, order_ms, step_id, attempt, fence, losses, holder, leased_ms
FROM json_each(:values) AS asked
JOIN items ON items.id IN (
    SELECT waiting.id
    FROM items AS waiting
    WHERE waiting.lane_number = coalesce((SELECT lanes.number FROM lanes WHERE lanes.id = asked.value), 0)
      AND waiting.lane_id = asked.value
      AND waiting.holder IS NULL
    ORDER BY waiting.starts, waiting.order_ms, waiting.id
    LIMIT :limit
)
ORDER BY asked.key, starts, order_ms, items.id;

-- name: shut_lanes
-- The lanes that a key shut, in the order in which they are opened.
SELECT id, function_id, keys, state, shut_by, tag, shut_at
FROM lanes
WHERE shut_by = :value
ORDER BY shut_at DESC, tag, id
LIMIT :limit;

-- name: shut_lanes_many
-- The lanes that several keys shut, with the key's place among those asked.
SELECT asked.key, lanes.id, function_id, keys, state, shut_by, tag, shut_at
FROM json_each(:values) AS asked
JOIN lanes ON lanes.id IN (
    SELECT shut.id
    FROM lanes AS shut
    WHERE shut.shut_by = asked.value
    ORDER BY shut.shut_at DESC, shut.tag, shut.id
    LIMIT :limit
)
ORDER BY asked.key, shut_at DESC, tag, lanes.id;

-- name: function_lanes
-- A function's shut lanes, behind an id.
SELECT id, function_id, keys, state, shut_by, tag, shut_at
FROM lanes
WHERE function_id = substr(:value, 1, instr(:value, char(10)) - 1)
  AND id > substr(:value, instr(:value, char(10)) + 1)
  AND state = 'shut'
ORDER BY id
LIMIT :limit;

-- name: empty_lanes
-- Lanes without items, of all functions.
SELECT id, function_id, keys, state, shut_by, tag, shut_at
FROM lanes
WHERE state = 'empty'
ORDER BY tag, id
LIMIT :limit;

-- name: old_dedups
-- Event keys that are remembered no longer than until a time.
SELECT function_id, event_key, run_id, expires_ms
FROM dedups
WHERE expires_ms <= CAST(:value AS INTEGER)
ORDER BY expires_ms, function_id, event_key
LIMIT :limit;

-- name: old_rates
-- Rates that are at rest since a time.
SELECT id, used, until_us
FROM rates
WHERE until_us <= CAST(:value AS INTEGER) * 1000
ORDER BY until_us, id
LIMIT :limit;

-- name: holder_items
-- What a holder has leased.
SELECT id, run_id, function_id, lane_id, keys, starts, order_ms, step_id, attempt, fence, losses, holder, leased_ms
FROM items
WHERE holder = :value
ORDER BY id
LIMIT :limit;

-- name: waits_of
-- The waits under a lookup key, behind a serial.
SELECT run_id, id, name, lookup, serial, "where", event, expires_ms
FROM waits
WHERE lookup = substr(:value, 1, instr(:value, char(10)) - 1)
  AND serial > CAST(substr(:value, instr(:value, char(10)) + 1) AS INTEGER)
ORDER BY serial
LIMIT :limit;

-- name: live_runs
-- A function's runs that have not ended, behind an id.
SELECT id, function_id, function_version, app_name, event_ids, status, cause, origin, lane_id, keys, order_ms, created_ms, started_ms, ended_ms, request_version, force_plan, pending, pending_key, steps, finished, state_bytes, calls, waits, output, reason, guarded, defers, held
FROM runs
WHERE function_id = substr(:value, 1, instr(:value, char(10)) - 1)
  AND id > substr(:value, instr(:value, char(10)) + 1)
  AND ended_ms IS NULL
ORDER BY id
LIMIT :limit;

-- name: span_metadata
-- What was noted about one span.
SELECT run_id, scope, span, kind, "values", updated_ms
FROM metadata
WHERE run_id = :value ->> 0
  AND scope = :value ->> 1
  AND span = :value ->> 2
ORDER BY kind
LIMIT :limit;

-- name: defers_of
-- What a run wants to have run after its end.
SELECT run_id, id, name, function_id, status, input, meta, reason, created_ms
FROM defers
WHERE run_id = :value
ORDER BY id
LIMIT :limit;

-- name: actor_entries
-- What an actor has stored in one generation.
SELECT kind, name, generation, key, value
FROM actor_entries
WHERE kind = :value ->> 0
  AND name = :value ->> 1
  AND generation = :value ->> 2
ORDER BY key
LIMIT :limit;

-- name: firing_actors
-- The actors whose alarm a holder runs.
SELECT kind, name, fence, holder, written, generation, entries, bytes, alarm_ms, alarm_retry, firing, fired_ms, fired_retry, firings, error
FROM actors
WHERE firing = :value
ORDER BY kind, name
LIMIT :limit;

-- name: end_runs_timers
-- The timers of runs that ended. The ids of a run's timers begin with their kind and the run.
DELETE FROM timers
WHERE id IN (
    SELECT timers.id
    FROM json_each(:keys) AS ended
    JOIN timers ON timers.id >= 'item/' || ended.value || '-' AND timers.id < 'item/' || ended.value || '.'
    UNION ALL
    SELECT timers.id
    FROM json_each(:keys) AS ended
    JOIN timers ON timers.id >= 'sleep/' || ended.value || '/' AND timers.id < 'sleep/' || ended.value || '0'
    UNION ALL
    SELECT timers.id
    FROM json_each(:keys) AS ended
    JOIN timers ON timers.id >= 'wait/' || ended.value || '/' AND timers.id < 'wait/' || ended.value || '0'
    UNION ALL
    SELECT timers.id
    FROM json_each(:keys) AS ended
    JOIN timers ON timers.id >= 'limit/' || ended.value || '/' AND timers.id < 'limit/' || ended.value || '0'
);

-- name: end_runs_waits
-- The waits and cancel rules of runs that ended.
DELETE FROM waits
WHERE run_id IN (SELECT value FROM json_each(:keys));

-- name: end_runs_names
-- The names that ended runs had.
DELETE FROM names
WHERE run_id IN (SELECT value FROM json_each(:keys));

-- name: end_runs_items
-- The items of ended runs that nobody holds; those that are out stay until their call ends.
DELETE FROM items
WHERE holder IS NULL
  AND id IN (
    SELECT items.id
    FROM json_each(:keys) AS ended
    JOIN items ON items.id >= ended.value || '-' AND items.id < ended.value || '.'
);

-- name: delete_runs_steps
-- The steps of runs whose time is over.
DELETE FROM steps
WHERE run_id IN (SELECT value FROM json_each(:keys));

-- name: delete_runs_attempts
-- Their tries.
DELETE FROM attempts
WHERE id IN (
    SELECT attempts.id
    FROM json_each(:keys) AS old
    JOIN attempts ON attempts.id >= old.value || '-' AND attempts.id < old.value || '.'
);

-- name: delete_runs_inputs
-- Their edited inputs.
DELETE FROM inputs
WHERE run_id IN (SELECT value FROM json_each(:keys));

-- name: delete_runs_metadata
-- What was noted about them.
DELETE FROM metadata
WHERE run_id IN (SELECT value FROM json_each(:keys));

-- name: delete_runs_spans
-- The spans of their users' code.
DELETE FROM spans
WHERE run_id IN (SELECT value FROM json_each(:keys));

-- name: delete_runs_trace_totals
-- How much there was of both.
DELETE FROM trace_totals
WHERE run_id IN (SELECT value FROM json_each(:keys));

-- name: delete_runs_defers
-- What they deferred.
DELETE FROM defers
WHERE run_id IN (SELECT value FROM json_each(:keys));

-- name: delete_runs_runs
-- The runs themselves.
DELETE FROM runs
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: queue_messages
-- A queue's messages that are not out, in their order; behind a place, which stands in a second line as its time and its id.
SELECT id, queue, ready_ms, sent_ms, content_type, body, attempts, losses, pulled, delivery, dead_of, error
FROM messages
WHERE queue = substr(:value, 1, instr(:value || char(10), char(10)) - 1)
  AND delivery IS NULL
  AND (ready_ms, id) > (
      CAST(substr(:value, instr(:value || char(10), char(10)) + 1) AS INTEGER),
      substr(:value, instr(:value || char(10), char(10)) + 1 + instr(substr(:value, instr(:value || char(10), char(10)) + 1), ' '))
  )
ORDER BY ready_ms, id
LIMIT :limit;

-- name: holder_deliveries
-- The deliveries that a holder has out.
SELECT id, queue, function_id, holder, messages, leased_ms
FROM deliveries
WHERE holder = :value
ORDER BY id
LIMIT :limit;

-- name: old_entries
-- Values that have expired until a time.
SELECT namespace, key, value, content_type, metadata, expires_ms
FROM kv
WHERE expires_ms <= CAST(:value AS INTEGER)
ORDER BY expires_ms, namespace, key
LIMIT :limit;
