-- What the reader asks. Lists are bounded by `:limit`; `:cursor` is the id behind which a page begins, or NULL.

-- name: catalogue_apps
-- Every app.
SELECT name, id, driver, url, sdk, framework, checksum, synced_ms, archived
FROM apps
ORDER BY name;

-- name: catalogue_functions
-- Every function.
SELECT id, uuid, app_name, name, config, version, keyed, paused, archived, draining, override, rekeyed
FROM functions
ORDER BY id;

-- name: holders
-- The nodes' epochs.
SELECT id, node_id, renewed_ms
FROM holders
ORDER BY id;

-- name: due_timers
-- Timers due up to a time.
SELECT id, due_ms
FROM timers
WHERE due_ms <= :until_ms
ORDER BY due_ms, id
LIMIT :limit;

-- name: next_due
-- When the first later timer is due.
SELECT min(due_ms)
FROM timers
WHERE due_ms > :after_ms;

-- name: held_items
-- What a holder has leased.
SELECT id, fence
FROM items
WHERE holder = :holder
ORDER BY id;

-- name: functions_with_work
-- Functions that have items nobody holds: one look at the index for each.
SELECT id
FROM functions
WHERE EXISTS (SELECT 1 FROM items WHERE items.holder IS NULL AND items.lane_number = 0 AND items.lane_id = functions.id)
   OR EXISTS (SELECT 1 FROM lanes WHERE lanes.state = 'ready' AND lanes.function_id = functions.id)
ORDER BY id;

-- name: run
-- A run.
SELECT id, function_id, function_version, app_name, event_ids, status, cause, origin, lane_id, keys, order_ms, created_ms, started_ms,
    ended_ms, request_version, force_plan, pending, pending_key, steps, finished, state_bytes, calls, waits, output, reason, guarded, defers, held
FROM runs
WHERE id = :id;

-- name: runs
-- Runs, newest first.
SELECT id, function_id, function_version, app_name, event_ids, status, cause, origin, lane_id, keys, order_ms, created_ms, started_ms,
    ended_ms, request_version, force_plan, pending, pending_key, steps, finished, state_bytes, calls, waits, output, reason, guarded, defers, held
FROM runs
WHERE id < coalesce(:cursor, 'a')
  AND (:status IS NULL OR status = :status)
ORDER BY id DESC
LIMIT :limit;

-- name: runs_of_function
-- Runs of one function, newest first.
SELECT id, function_id, function_version, app_name, event_ids, status, cause, origin, lane_id, keys, order_ms, created_ms, started_ms,
    ended_ms, request_version, force_plan, pending, pending_key, steps, finished, state_bytes, calls, waits, output, reason, guarded, defers, held
FROM runs
WHERE function_id = :function_id
  AND id < coalesce(:cursor, 'a')
  AND (:status IS NULL OR status = :status)
ORDER BY id DESC
LIMIT :limit;

-- name: runs_unhappy
-- Failed or cancelled runs, newest first, by their own index.
SELECT id, function_id, function_version, app_name, event_ids, status, cause, origin, lane_id, keys, order_ms, created_ms, started_ms,
    ended_ms, request_version, force_plan, pending, pending_key, steps, finished, state_bytes, calls, waits, output, reason, guarded, defers, held
FROM runs INDEXED BY runs_unhappy
WHERE status = :status
  AND status IN ('failed', 'cancelled')
  AND id < coalesce(:cursor, 'a')
ORDER BY id DESC
LIMIT :limit;

-- name: runs_of_event
-- The runs that an event started, alone or with others.
SELECT id, function_id, function_version, app_name, event_ids, status, cause, origin, lane_id, keys, order_ms, created_ms, started_ms,
    ended_ms, request_version, force_plan, pending, pending_key, steps, finished, state_bytes, calls, waits, output, reason, guarded, defers, held
FROM runs
WHERE first_event_id = :event_id
   OR id IN (SELECT run_id FROM members WHERE event_id = :event_id)
ORDER BY id
LIMIT :limit;

-- name: runs_by_id
-- Runs by their ids.
SELECT id, function_id, function_version, app_name, event_ids, status, cause, origin, lane_id, keys, order_ms, created_ms, started_ms,
    ended_ms, request_version, force_plan, pending, pending_key, steps, finished, state_bytes, calls, waits, output, reason, guarded, defers, held
FROM runs
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: step_of
-- A step with its memo.
SELECT run_id, id, op, name, user_id, "index", status, opts, memo, attempts, queued_ms, started_ms, ended_ms, position, ref
FROM steps
WHERE run_id = :run_id
  AND id = :id;

-- name: steps_of
-- A run's steps with their memos.
SELECT run_id, id, op, name, user_id, "index", status, opts, memo, attempts, queued_ms, started_ms, ended_ms, position, ref
FROM steps
WHERE run_id = :run_id
ORDER BY queued_ms, CASE WHEN position < 0 THEN 1 << 30 ELSE position END, id;

-- name: attempts_of
-- A run's failed and lost tries. Their ids begin with the run's.
SELECT id, run_id, step_id, attempt, kind, started_ms, ended_ms, error, worker
FROM attempts
WHERE id >= :run_id || '-'
  AND id < :run_id || '.'
ORDER BY ended_ms, id;

-- name: items_ahead
-- How many items of a lane that nobody holds are before a place in it.
SELECT count(*)
FROM (
    SELECT 1
    FROM items
    WHERE lane_number = coalesce((SELECT lanes.number FROM lanes WHERE lanes.id = :lane_id), 0)
      AND lane_id = :lane_id
      AND holder IS NULL
      AND (starts, order_ms, id) < (:starts, :order_ms, :id)
    LIMIT :limit
);

-- name: leased_items
-- Items that are out.
SELECT id, run_id, function_id, lane_id, keys, starts, order_ms, step_id, attempt, fence, losses, holder, leased_ms
FROM items
WHERE holder IS NOT NULL
ORDER BY id
LIMIT :limit;

-- name: begun_runs
-- A function's runs that have begun and not ended.
SELECT id, function_id, function_version, app_name, event_ids, status, cause, origin, lane_id, keys, order_ms, created_ms, started_ms,
    ended_ms, request_version, force_plan, pending, pending_key, steps, finished, state_bytes, calls, waits, output, reason, guarded, defers, held
FROM runs
WHERE function_id = :function_id
  AND ended_ms IS NULL
  AND started_ms IS NOT NULL
ORDER BY id
LIMIT :limit;

-- name: queue_depths
-- How much waits for each function: in its own lane, and in those of its keys, by the indexes of lanes that hold items.
WITH waiting AS (
    SELECT functions.id AS function_id, items.order_ms
    FROM functions
    JOIN items ON items.lane_number = 0 AND items.lane_id = functions.id AND items.holder IS NULL
    UNION ALL
    SELECT lanes.function_id, items.order_ms
    FROM lanes
    JOIN items ON items.lane_number = lanes.number AND items.lane_id = lanes.id AND items.holder IS NULL
    WHERE lanes.state IN ('ready', 'shut')
)
SELECT function_id, min(count(*), :limit), min(order_ms)
FROM waiting
GROUP BY function_id
ORDER BY function_id;

-- name: items_of
-- A run's outstanding items.
SELECT id, run_id, function_id, lane_id, keys, starts, order_ms, step_id, attempt, fence, losses, holder, leased_ms
FROM items
WHERE id >= :run_id || '-'
  AND id < :run_id || '.'
ORDER BY id;

-- name: timers_of
-- A run's timers.
SELECT id, due_ms, kind, run_id, ref, after, item
FROM timers
WHERE (id >= 'item/' || :run_id || '-' AND id < 'item/' || :run_id || '.')
   OR (id >= 'sleep/' || :run_id || '/' AND id < 'sleep/' || :run_id || '0')
   OR (id >= 'wait/' || :run_id || '/' AND id < 'wait/' || :run_id || '0')
   OR (id >= 'limit/' || :run_id || '/' AND id < 'limit/' || :run_id || '0')
ORDER BY id;

-- name: events_by_id
-- Events by their internal ids.
SELECT id, key, name, data, user, ts, v, meta, received_ms, run_id, receipts
FROM events
WHERE id IN (SELECT value FROM json_each(:keys));

-- name: events
-- Events, newest first.
SELECT id, key, name, data, user, ts, v, meta, received_ms, run_id, receipts
FROM events
WHERE id < coalesce(:cursor, 'a')
  AND (:name IS NULL OR name = :name)
  AND (:after_ms IS NULL OR received_ms > :after_ms)
  AND (:before_ms IS NULL OR received_ms < :before_ms)
ORDER BY id DESC
LIMIT :limit;

-- name: cancellations
-- Bulk cancellations, newest first.
SELECT id, app_name, function_id, after_ms, before_ms, "where", created_ms
FROM cancellations
ORDER BY id DESC
LIMIT :limit;

-- name: set_aside
-- Inputs that raised, newest first.
SELECT id, input, error, run_id, created_ms
FROM set_aside
ORDER BY created_ms DESC, id
LIMIT :limit;

-- name: walk_made_down
-- Runs by their id, the newest first, without their bodies.
SELECT id, status, function_id, NULL
FROM runs
WHERE id >= :low
  AND id < :high
  AND id < coalesce(:after, 'a')
ORDER BY id DESC
LIMIT :limit;

-- name: walk_made_down_of_function
-- Runs of one function by their id, the newest first.
SELECT id, status, function_id, NULL
FROM runs
WHERE function_id = :function_id
  AND id >= :low
  AND id < :high
  AND id < coalesce(:after, 'a')
ORDER BY id DESC
LIMIT :limit;

-- name: walk_started_down
-- Runs by when they started, the latest first.
SELECT id, status, function_id, started_ms
FROM runs INDEXED BY runs_started
WHERE started_ms >= :from_ms
  AND started_ms < :until_ms
  AND (started_ms, id) < (:after_ms, :after_id)
ORDER BY started_ms DESC, id DESC
LIMIT :limit;

-- name: walk_ended_down
-- Runs by when they ended, the latest first.
SELECT id, status, function_id, ended_ms
FROM runs INDEXED BY runs_ended
WHERE ended_ms >= :from_ms
  AND ended_ms < :until_ms
  AND (ended_ms, id) < (:after_ms, :after_id)
ORDER BY ended_ms DESC, id DESC
LIMIT :limit;

-- name: walk_made_up
-- Runs by their id, the oldest first, without their bodies.
SELECT id, status, function_id, NULL
FROM runs
WHERE id >= :low
  AND id < :high
  AND id > coalesce(:after, '')
ORDER BY id ASC
LIMIT :limit;

-- name: walk_made_up_of_function
-- Runs of one function by their id, the oldest first.
SELECT id, status, function_id, NULL
FROM runs
WHERE function_id = :function_id
  AND id >= :low
  AND id < :high
  AND id > coalesce(:after, '')
ORDER BY id ASC
LIMIT :limit;

-- name: walk_started_up
-- Runs by when they started, the earliest first.
SELECT id, status, function_id, started_ms
FROM runs INDEXED BY runs_started
WHERE started_ms >= :from_ms
  AND started_ms < :until_ms
  AND (started_ms, id) > (:after_ms, :after_id)
ORDER BY started_ms ASC, id ASC
LIMIT :limit;

-- name: walk_ended_up
-- Runs by when they ended, the earliest first.
SELECT id, status, function_id, ended_ms
FROM runs INDEXED BY runs_ended
WHERE ended_ms >= :from_ms
  AND ended_ms < :until_ms
  AND (ended_ms, id) > (:after_ms, :after_id)
ORDER BY ended_ms ASC, id ASC
LIMIT :limit;

-- name: walk_events
-- Events by their id, the newest first, without their bodies.
SELECT id, name, received_ms
FROM events
WHERE id < coalesce(:after, 'a')
ORDER BY id DESC
LIMIT :limit;

-- name: inputs_of
-- The inputs that a rerun gives its steps.
SELECT run_id, step_id, input
FROM inputs
WHERE run_id = :run_id
ORDER BY step_id;

-- name: metadata_of
-- What was noted about a run and its parts.
SELECT run_id, scope, span, kind, "values", updated_ms
FROM metadata
WHERE run_id = :run_id
ORDER BY scope, span, kind;

-- name: spans_of
-- The spans of a run's own code, in the order in which they began.
SELECT run_id, id, parent_id, step_id, name, kind, status, message, attributes, started_ms, ended_ms
FROM spans
WHERE run_id = :run_id
ORDER BY started_ms, id;

-- name: count_set_aside
-- How many inputs raised.
SELECT count(*)
FROM set_aside;

-- name: newest_event
-- When the latest event came in.
SELECT received_ms
FROM events
ORDER BY id DESC
LIMIT 1;

-- name: queues
-- Queues by name.
SELECT id, paused, waiting, waiting_bytes, retention_ms, visibility_ms, max_retries, dead_letter
FROM queues
WHERE id > :after
ORDER BY id
LIMIT :limit;

-- name: queue
-- A queue.
SELECT id, paused, waiting, waiting_bytes, retention_ms, visibility_ms, max_retries, dead_letter
FROM queues
WHERE id = :id;

-- name: held_deliveries
-- The deliveries that a holder has out.
SELECT id
FROM deliveries
WHERE holder = :holder
ORDER BY id;

-- name: deliveries_of
-- The deliveries of a queue that are out; there are never many.
SELECT id, queue, function_id, holder, messages, leased_ms
FROM deliveries
WHERE queue = :queue
ORDER BY id
LIMIT :limit;

-- name: message
-- A message.
SELECT id, queue, ready_ms, sent_ms, content_type, body, attempts, losses, pulled, delivery, dead_of, error
FROM messages
WHERE id = :id;

-- name: kv_get
-- Values by key, those that have not expired.
SELECT namespace, key, value, content_type, metadata, expires_ms
FROM kv
WHERE namespace = :namespace
  AND key IN (SELECT value FROM json_each(:keys))
  AND (expires_ms IS NULL OR expires_ms > :now_ms);

-- name: kv_list
-- Keys of a namespace, without their values, from a key to another; those that have not expired.
SELECT namespace, key, x'', content_type, metadata, expires_ms
FROM kv
WHERE namespace = :namespace
  AND key > :after
  AND key >= :first
  AND key < :last
  AND (expires_ms IS NULL OR expires_ms > :now_ms)
ORDER BY key
LIMIT :limit;

-- name: kv_namespaces
-- The namespaces that hold anything, but the one without a name, where the engine keeps signals: one look at the index for each.
WITH RECURSIVE found (namespace) AS (
    SELECT min(namespace) FROM kv WHERE namespace > ''
    UNION ALL
    SELECT (SELECT min(kv.namespace) FROM kv WHERE kv.namespace > found.namespace) FROM found WHERE found.namespace IS NOT NULL
)
SELECT namespace
FROM found
WHERE namespace IS NOT NULL
LIMIT :limit;

-- name: actor_values
-- Of an actor's entries, those with these keys.
SELECT entry.key, entry.value
FROM actors
JOIN json_each(:keys) AS asked
JOIN actor_entries AS entry
  ON entry.kind = actors.kind AND entry.name = actors.name AND entry.generation = actors.generation AND entry.key = asked.value
WHERE actors.kind = :kind
  AND actors.name = :name
ORDER BY entry.key;

-- name: actor_range
-- The first entries of a range of an actor's keys.
SELECT entry.key, entry.value
FROM actors
JOIN actor_entries AS entry ON entry.kind = actors.kind AND entry.name = actors.name AND entry.generation = actors.generation
WHERE actors.kind = :kind
  AND actors.name = :name
  AND entry.key >= :start
  AND (:until IS NULL OR entry.key < :until)
ORDER BY entry.key
LIMIT :limit;

-- name: actor_range_reversed
-- The last entries of a range of an actor's keys, the last one first.
SELECT entry.key, entry.value
FROM actors
JOIN actor_entries AS entry ON entry.kind = actors.kind AND entry.name = actors.name AND entry.generation = actors.generation
WHERE actors.kind = :kind
  AND actors.name = :name
  AND entry.key >= :start
  AND (:until IS NULL OR entry.key < :until)
ORDER BY entry.key DESC
LIMIT :limit;

-- name: actor
-- One actor.
SELECT kind, name, fence, holder, written, generation, entries, bytes, alarm_ms, alarm_retry, firing, fired_ms, fired_retry, firings, error
FROM actors
WHERE kind = :kind
  AND name = :name;

-- name: actors
-- A page of a kind's actors, by name.
SELECT kind, name, fence, holder, written, generation, entries, bytes, alarm_ms, alarm_retry, firing, fired_ms, fired_retry, firings, error
FROM actors
WHERE kind = :kind
  AND name > :after
ORDER BY name
LIMIT :limit;

-- name: actor_kinds
-- The kinds that have actors: a skip from one to the next.
WITH RECURSIVE kinds(kind) AS (
    SELECT min(kind) FROM actors
    UNION ALL
    SELECT (SELECT min(actors.kind) FROM actors WHERE actors.kind > kinds.kind) FROM kinds WHERE kinds.kind IS NOT NULL
)
SELECT kind,
    (SELECT count(*) FROM (SELECT 1 FROM actors WHERE actors.kind = kinds.kind LIMIT :limit)),
    (SELECT count(*) FROM (SELECT 1 FROM actors WHERE actors.kind = kinds.kind AND alarm_ms IS NOT NULL LIMIT :limit)),
    (SELECT min(alarm_ms) FROM actors WHERE actors.kind = kinds.kind AND alarm_ms IS NOT NULL)
FROM kinds
WHERE kind IS NOT NULL;

-- name: held_alarms
-- The alarms that a node runs.
SELECT kind, name, firings
FROM actors
WHERE firing = :holder
ORDER BY kind, name;
