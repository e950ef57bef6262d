"""Durable Objects: alarms, gates and resets, calls and their errors, storage, SQL."""

from __future__ import annotations

from typing import Any

from tests.compat.cloudflare.scenario import Error, Group, Observation, Op, Scenario, caught, results, shown

BOOM: Op = ["throw", "Error", "boom"]
FAILED = "Error: boom"


def ran(*runs: str) -> Observation:
    """The runs of the alarm of the object "one"."""
    return Observation(alarms={"one": runs} if runs else {})


def alarm(
    id: str, title: str, expected: Observation, *call: Op, window_s: float = 2.5, after: tuple[Op, ...] = (), **fields: Any
) -> Scenario:
    """A scenario of a call that sets an alarm, and what comes after it."""
    return Scenario(
        id=id, group="Alarms", title=title, expected=expected, steps=[["call", "one", list(call)], *after], window_s=window_s, **fields
    )


def once_at(mark: str, *, is_set: Any = "as set", before: tuple[Any, ...] = (None,)) -> Observation:
    """An alarm that runs once; `getAlarm` in the call that set it."""
    return Observation(alarms={"one": (f"run{mark}: []",)}, results=(shown([*before, is_set]),))


ALARMS = (
    alarm("alarm", "An alarm in 2 s", once_at(" after 2 s"), ["setAlarm", 2000], ["getAlarm"], window_s=4),
    alarm(
        "alarm-later",
        "Set again, later: only the last fires",
        once_at(" after 4 s", before=(None, None)),
        ["setAlarm", 2000],
        ["setAlarm", 4000],
        ["getAlarm"],
        window_s=6,
    ),
    alarm(
        "alarm-earlier",
        "Set again, earlier: only the last fires",
        once_at(" after 2 s", before=(None, None)),
        ["setAlarm", 4000],
        ["setAlarm", 2000],
        ["getAlarm"],
        window_s=6,
    ),
    alarm(
        "alarm-deleted",
        "Deleted: none fires",
        Observation(alarms={}, results=(shown([None, None, None]),)),
        ["setAlarm", 2000],
        ["deleteAlarm"],
        ["getAlarm"],
        window_s=4,
    ),
    alarm("alarm-past", "A time in the past: at once", ran("run: []"), ["setAlarm", -60_000]),
    alarm(
        "alarm-refused",
        "Times of 0 and below are refused",
        Observation(
            alarms={},
            results=(shown([caught("TypeError", "setAlarm() cannot be called with an alarm time <= 0")] * 2 + [None]),),
        ),
        ["catch", [["setAlarm at", 0]]],
        ["catch", [["setAlarm at", -1]]],
        ["getAlarm"],
    ),
    alarm(
        "alarm-throws",
        "It throws: tried again after 2, 4, 8 s (each up to a quarter longer)",
        ran(f"run: {FAILED}", f"retry 1 after 2 s: {FAILED}", f"retry 2 after 4 s: {FAILED}", f"retry 3 after 8 s: {FAILED}"),
        ["setAlarm", 1],
        alarms=[[BOOM]],
        alarm_runs=4,
        marks=(0, 2, 4, 8, 12),
        window_s=14,
    ),
    alarm(
        "alarm-info",
        "What the alarm is told: `retryCount`, `isRetry`, and the same `scheduledTime` over retries",
        ran("run: Error: boom", 'retry 1 after 2 s: [[1, true, "as set"]]'),
        ["setAlarm", 1],
        alarms=[[["info"], BOOM], [["info"]]],
        window_s=4,
    ),
    alarm(
        "alarm-again",
        "Set inside: the next one",
        ran("run: [null]", "run after 2 s: []"),
        ["setAlarm", 1],
        alarms=[[["setAlarm", 2000]], []],
        window_s=4,
    ),
    alarm(
        "alarm-again-throws",
        "Set inside, then it throws: what was set replaces the retry",
        ran(f"run: {FAILED}", "run after 6 s: []"),
        ["setAlarm", 1],
        alarms=[[["setAlarm", 6000], BOOM], []],
        window_s=8,
    ),
    alarm(
        "get-alarm-again",
        "`getAlarm()` inside, after `setAlarm()`: the new time",
        ran('run: [null, null, "as set"]', "run: []"),
        ["setAlarm", 1],
        alarms=[[["getAlarm"], ["setAlarm", 1000], ["getAlarm"]], []],
    ),
    alarm(
        "alarm-stops-itself",
        "`deleteAlarm()` inside one that fails: no retry",
        ran(f"run: {FAILED}"),
        ["setAlarm", 1],
        alarms=[[["deleteAlarm"], BOOM]],
        window_s=4,
    ),
    alarm(
        "alarm-deletes-all",
        "`deleteAll()` inside one that fails: no retry",
        ran(f"run: {FAILED}"),
        ["setAlarm", 1],
        alarms=[[["deleteAll"], BOOM]],
        window_s=4,
    ),
    alarm(
        "alarm-deleted-running",
        "`deleteAlarm()` by a call while one runs that fails: no retry",
        ran(f"run: {FAILED}"),
        ["setAlarm", 1],
        after=(["sleep", 600], ["call", "one", [["deleteAlarm"]]]),
        alarms=[[["sleep", 1200], BOOM]],
        window_s=6,
    ),
    alarm(
        "alarm-deleted-failed",
        "`deleteAlarm()` by a call while a retry waits: no retry",
        ran(f"run: {FAILED}"),
        ["setAlarm", 1],
        after=(["sleep", 1000], ["call", "one", [["deleteAlarm"]]]),
        alarms=[[BOOM]],
        window_s=6,
    ),
    alarm(
        "alarm-set-failed-later",
        "Set by a call while a retry waits, to a later time: it replaces the retry",
        ran(f"run: {FAILED}", "run after 6 s: []"),
        ["setAlarm", 1],
        after=(["sleep", 1000], ["call", "one", [["setAlarm", 5000]]]),
        alarms=[[BOOM], []],
        marks=(0, 2, 4, 5, 6, 8),
        window_s=9,
    ),
    alarm(
        "alarm-set-failed-earlier",
        "Set by a call while a retry waits, to an earlier time",
        ran(f"run: {FAILED}", f"retry 1 after 2 s: {FAILED}", "run: []"),
        ["setAlarm", 1],
        after=(["sleep", 500], ["call", "one", [["setAlarm", 500]]]),
        alarms=[[BOOM], [BOOM], []],
        marks=(0, 2),
        window_s=6,
        here=ran(f"run: {FAILED}", f"run: {FAILED}", "retry 1 after 2 s: []"),
        differs_because="what is set replaces the retry, as documented; the local runtime runs the retry first, at its own time",
    ),
    alarm(
        "alarm-aborts",
        "`ctx.abort()` inside: a failure, and retried",
        ran("run", "retry 1 after 2 s"),
        ["setAlarm", 1],
        alarms=[[["abort", "stop"]]],
        alarm_runs=2,
        window_s=4,
    ),
    alarm(
        "alarm-wait-until",
        "A `waitUntil` of it rejects: not retried",
        ran("run: [null]"),
        ["setAlarm", 1],
        alarms=[[["waitUntil", [["sleep", 100], BOOM]]]],
        window_s=4,
    ),
    alarm(
        "alarm-call-throws",
        "The call that set it throws: it is kept",
        Observation(alarms={"one": ("run: []",)}, results=(FAILED,)),
        ["unawaited", ["setAlarm", 1]],
        BOOM,
    ),
    alarm(
        "get-alarm-running",
        "`getAlarm()` while it runs: null, also for other calls",
        Observation(alarms={"one": ("run: [null, null]",)}, results=(shown([None]), shown(None), shown([None]))),
        ["setAlarm", 1],
        after=(["sleep", 1000], ["call", "one", [["getAlarm"]]]),
        alarms=[[["getAlarm"], ["sleep", 2000]]],
    ),
    alarm(
        "get-alarm-between",
        "`getAlarm()` between retries: the old time",
        Observation(alarms={"one": (f"run: {FAILED}", "retry 1 after 2 s: []")}, results=(shown([None]), shown(None), shown(["as set"]))),
        ["setAlarm", 1],
        after=(["sleep", 1000], ["call", "one", [["getAlarm"]]]),
        alarms=[[BOOM], []],
        window_s=4,
    ),
    alarm(
        "alarm-in-call",
        "It runs while a call waits on a timer",
        Observation(trace=("call 1 begins", "alarm begins", "alarm ends", "call 1 ends"), alarms={"one": ("run: []",)}),
        ["setAlarm", 300],
        ["sleep", 1500],
    ),
    alarm(
        "call-in-alarm",
        "A call runs while the alarm waits on a timer",
        Observation(
            trace=("call 1 begins", "call 1 ends", "alarm begins", "call 2 begins", "call 2 ends", "alarm ends"),
            alarms={"one": ("run: [null]",)},
        ),
        ["setAlarm", 1],
        after=(["sleep", 1000], ["call", "one", [["get", "key"]]]),
        alarms=[[["sleep", 2000]]],
    ),
    alarm(
        "alarm-blocked",
        "It waits for `blockConcurrencyWhile`",
        Observation(trace=("call 1 begins", "unblocked", "call 1 ends", "alarm begins", "alarm ends"), alarms={"one": ("run: []",)}),
        ["block", [["setAlarm", 300], ["sleep", 1500], ["mark", "unblocked"]]],
    ),
    alarm(
        "alarms-in-turn",
        "Two runs of one object never overlap",
        Observation(
            trace=("call 1 begins", "call 1 ends", "alarm begins", "alarm ends", "alarm begins", "alarm ends"),
            alarms={"one": ("run: [null, null]", "run: []")},
        ),
        ["setAlarm", 1],
        alarms=[[["setAlarm", 1], ["sleep", 1000]], []],
    ),
    alarm(
        "alarm-writes",
        "What a failing run wrote is kept",
        ran(f"run: {FAILED}", "retry 1 after 2 s: [1]"),
        ["setAlarm", 1],
        alarms=[[["put", "key", 1], BOOM], [["get", "key"]]],
        window_s=4,
    ),
    alarm(
        "alarm-rolled-back",
        "Set in a transaction that is rolled back: none",
        Observation(alarms={}, results=(shown([caught("Error", "boom"), None]),)),
        ["catch", [["transaction", [["setAlarm", 500], BOOM]]]],
        ["getAlarm"],
    ),
    alarm(
        "alarm-delete-all",
        "`deleteAll()` deletes it too",
        Observation(alarms={}, results=(shown([None, None, None]),)),
        ["setAlarm", 500],
        ["deleteAll"],
        ["getAlarm"],
    ),
    alarm(
        "evicted",
        "After 14 s without work its fields are lost, the alarm comes all the same",
        ran("run after 14 s: [null, 1]"),
        ["field", "kept", 1],
        ["put", "key", 1],
        ["setAlarm", 14_000],
        alarms=[[["field", "kept"], ["get", "key"]]],
        marks=(0, 14),
        window_s=15,
    ),
)


def one(group: Group, id: str, title: str, expected: Observation, *steps: Op, **fields: Any) -> Scenario:
    """A scenario of calls."""
    return Scenario(id=id, group=group, title=title, expected=expected, steps=list(steps), **fields)


def call(*ops: Op, name: str = "one") -> Op:
    """A call of an object."""
    return ["call", name, list(ops)]


GATED: Group = "Gates, order and resets"
RESET = Error("Error", "stop")


def value(*values: Any) -> dict[str, Any]:
    """What a call among several side by side comes to."""
    return {"value": list(values)}


GATES = (
    one(
        GATED,
        "gate-storage",
        "Two calls read and write: one after the other",
        results([value(1), value(2)], [2]),
        ["together", [call(["add", "n", 1]), call(["add", "n", 1])]],
        call(["get", "n"]),
    ),
    one(
        GATED,
        "gate-timer",
        "A timer between read and write: they interleave, one update is lost",
        results([value(1), value(1)], [1]),
        ["together", [call(["add", "n", 1, 100]), call(["add", "n", 1, 100])]],
        call(["get", "n"]),
    ),
    one(
        GATED,
        "gate-block",
        "The same inside `blockConcurrencyWhile`: one after the other",
        results([value([1]), value([2])], [2]),
        ["together", [call(["block", [["add", "n", 1, 100]]]), call(["block", [["add", "n", 1, 100]]])]],
        call(["get", "n"]),
    ),
    one(
        GATED,
        "gate-transaction",
        "The same inside `transaction`: one after the other",
        results([value([1]), value([2])], [2]),
        ["together", [call(["transaction", [["add", "n", 1, 100]]]), call(["transaction", [["add", "n", 1, 100]]])]],
        call(["get", "n"]),
    ),
    one(
        GATED,
        "gate-many-writes",
        "50 awaited writes in one call: another call waits for them all",
        Observation(trace=("call 1 begins", "call 1 ends", "call 2 begins", "call 2 ends")),
        ["together", [call(*[["put", f"key {number}", number] for number in range(50)]), call(["get", "key 49"])]],
    ),
    one(
        GATED,
        "order",
        "Calls of one stub arrive in order; slow ones overlap and end in their own order",
        Observation(trace=("call 1 begins", "call 2 begins", "call 3 begins", "call 3 ends", "call 2 ends", "call 1 ends")),
        ["together", [["held", "one", [["sleep", ms]]] for ms in (900, 500, 100)]],
    ),
    one(
        GATED,
        "setup",
        "`blockConcurrencyWhile` in the constructor: the first call waits for it",
        results([1, "ready"]),
        call(["get", "key"], ["field", "is"]),
        setup=[["put", "key", 1], ["sleep", 300], ["field", "is", "ready"]],
    ),
    one(
        GATED,
        "setup-throws",
        "It throws in the constructor: each call fails with its error, and it is tried again",
        Observation(results=(shown(Error("RangeError", "not today")),) * 2),
        call(["get", "key"]),
        call(["get", "key"]),
        setup=[["throw", "RangeError", "not today"]],
    ),
    one(
        GATED,
        "block-throws",
        "It throws in a method: the object is reset, its fields are lost; what was written is kept",
        results([1], Error("RangeError", "not now"), [None, 1]),
        call(["field", "is", 1]),
        call(["put", "key", 1], ["sync"], ["block", [["throw", "RangeError", "not now"]]]),
        call(["field", "is"], ["get", "key"]),
    ),
    one(
        GATED,
        "broken-stub",
        "The stub that saw the reset stays broken",
        results(Error("RangeError", "not now"), Error("RangeError", "not now"), [None]),
        ["held", "one", [["block", [["throw", "RangeError", "not now"]]]]],
        ["held", "one", [["get", "key"]]],
        call(["get", "key"]),
    ),
    one(
        GATED,
        "abort",
        "`ctx.abort()` after `sync()`: all running calls fail, fields are lost, writes are kept",
        Observation(
            results=(
                shown([{"error": {"name": "Error", "message": "stop"}}, {"error": {"name": "Error", "message": "stop"}}]),
                shown([None, 1]),
            )
        ),
        ["together", [["held", "one", [["field", "is", 1], ["sleep", 3000]]], call(["put", "key", 1], ["sync"], ["abort", "stop"])]],
        call(["field", "is"], ["get", "key"]),
    ),
    one(
        GATED,
        "abort-unsynced",
        "`ctx.abort()` in the turn of a `put`: the write is lost",
        Observation(results=(shown(RESET), shown([None]))),
        call(["put", "key", 1], ["abort", "stop"]),
        call(["get", "key"]),
    ),
    one(
        GATED,
        "wait-until",
        "A write in `waitUntil` after the reply is kept",
        results([None], None, [1]),
        call(["waitUntil", [["sleep", 300], ["put", "key", 1]]]),
        ["sleep", 1000],
        call(["get", "key"]),
    ),
)

RPC: Group = "Calls of an object"
CALLS = (
    one(
        RPC,
        "values",
        "Arguments and results come over as they are",
        results([1, 2.5, "é", None, True, [1, [2]], {"a": {"b": None}}]),
        ["rpc", "one", "echo", [1, 2.5, "é", None, True, [1, [2]], {"a": {"b": None}}]],
    ),
    one(
        RPC,
        "errors",
        "Errors keep their class and message",
        results(Error("Error", "boom"), Error("TypeError", "no such type"), Error("RangeError", "too far"), Error("Custom", "my own")),
        call(BOOM),
        call(["throw", "TypeError", "no such type"]),
        call(["throw", "RangeError", "too far"]),
        call(["throw", "Custom", "my own"]),
    ),
    one(
        RPC,
        "unknown-methods",
        "What is no method cannot be called: unknown names, fields, `ctx`, `env`",
        Observation(
            results=tuple(
                shown(Error("TypeError", f'The RPC receiver does not implement the method "{name}".'))
                for name in ("nope", "fields", "ctx", "env")
            )
        ),
        *[["rpc", "one", name, []] for name in ("nope", "fields", "ctx", "env")],
    ),
    one(
        RPC,
        "reserved-alarm",
        "`alarm()` cannot be called",
        results(Error("TypeError", "'alarm' is a reserved method and cannot be called over RPC.")),
        ["rpc", "one", "alarm", []],
    ),
    one(RPC, "underscores", "Methods whose names begin with `_` are callable", results("under"), ["rpc", "one", "_under", []]),
    one(
        RPC,
        "ids",
        "`idFromName` is stable, 64 hex digits, and `ctx.id.name` is the name",
        results([True, True], [False, True], ["ids/one"]),
        ["same id", "one", "one"],
        ["same id", "one", "two"],
        call(["name"]),
    ),
    one(
        RPC,
        "bad-id",
        "`idFromString` of what is no id",
        results(
            Error("TypeError", "Invalid Durable Object ID: must be 64 hex digits"),
            Error("TypeError", "Durable Object ID is not valid for this namespace."),
        ),
        ["id of", "abc"],
        ["id of", "0" * 64],
    ),
)

STORED: Group = "Storage"
LIST: Op = ["list"]
FILLED: Op = ["put", {name: number for number, name in enumerate(["a", "b", "ba", "bb", "c"])}]

STORAGE = (
    one(
        STORED,
        "get-put",
        "`get` of one and of many: sorted by key, without those that are missing, each once",
        results([None, None, {"x": [1]}, None, {"a": 1, "b": 2, "key": {"x": [1]}}, {}]),
        call(
            ["get", "key"],
            ["put", "key", {"x": [1]}],
            ["get", "key"],
            ["put", {"b": 2, "a": 1}],
            ["get", ["key", "none", "b", "a", "b"]],
            ["get", []],
        ),
    ),
    one(
        STORED,
        "delete",
        "`delete` of one tells whether it was there, of many how many were",
        results([None, True, False, 2, {"bb": 3, "c": 4}]),
        call(FILLED, ["delete", "ba"], ["delete", "ba"], ["delete", ["a", "b", "ba", "none"]], LIST),
    ),
    one(
        STORED,
        "list-order",
        "`list` is in the order of UTF-8 bytes",
        results([None, {"": 5, "B": 0, "a": 1, "z": 2, "é": 3, "\uffee": 6, "😀": 4}]),
        call(["put", {"B": 0, "a": 1, "z": 2, "é": 3, "😀": 4, "": 5, "\uffee": 6}], LIST),
    ),
    one(
        STORED,
        "list-options",
        "`list`: prefix, start (inclusive), startAfter, end (exclusive), reverse, limit",
        results(
            [
                None,
                {"b": 1, "ba": 2, "bb": 3},
                {"ba": 2, "bb": 3, "c": 4},
                {"bb": 3, "c": 4},
                {"b": 1, "ba": 2},
                {"bb": 3, "ba": 2},
                {"a": 0, "b": 1},
                {},
                {"bb": 3, "ba": 2},
            ]
        ),
        call(
            FILLED,
            ["list", {"prefix": "b"}],
            ["list", {"start": "ba"}],
            ["list", {"startAfter": "ba"}],
            ["list", {"start": "b", "end": "bb"}],
            ["list", {"start": "ba", "end": "c", "reverse": True}],
            ["list", {"limit": 2}],
            ["list", {"start": "c", "end": "a"}],
            ["list", {"prefix": "b", "reverse": True, "limit": 2}],
        ),
    ),
    one(
        STORED,
        "list-refused",
        "`list` with a limit of 0 or below, with `start` and `startAfter`",
        results(
            [
                caught("TypeError", "List limit must be positive."),
                caught("TypeError", "List limit must be positive."),
                caught("TypeError", "list() cannot be called with both start and startAfter values."),
            ]
        ),
        call(
            ["catch", [["list", {"limit": 0}]]],
            ["catch", [["list", {"limit": -1}]]],
            ["catch", [["list", {"start": "a", "startAfter": "a"}]]],
        ),
    ),
    one(
        STORED,
        "unawaited",
        "A read after a write that nobody awaited sees it",
        results([None, 1, {"key": 1}]),
        call(["unawaited", ["put", "key", 1]], ["get", "key"], LIST),
    ),
    one(
        STORED,
        "throw-keeps",
        "A call that throws rolls nothing back, neither storage nor SQL",
        results(Error("Error", "boom"), [{"a": 1, "b": 2}, [{"x": 1}]]),
        call(
            ["sql", "CREATE TABLE t (x INTEGER)"],
            ["unawaited", ["put", "a", 1]],
            ["unawaited", ["put", "b", 2]],
            ["sql", "INSERT INTO t VALUES (1)"],
            BOOM,
        ),
        call(LIST, ["sql", "SELECT x FROM t"]),
    ),
    one(
        STORED,
        "transaction",
        "`transaction`: its value; an error rolls back and is thrown; `rollback()` rolls back and gives the value",
        results([[None, 1], caught("Error", "boom"), 1, [None, None, 4], 1]),
        call(
            ["transaction", [["put", "key", 1], ["get", "key"]]],
            ["catch", [["transaction", [["put", "key", 2], BOOM]]]],
            ["get", "key"],
            ["transaction", [["put", "key", 3], ["rollback"], ["field", "four", 4]]],
            ["get", "key"],
        ),
    ),
    one(
        STORED,
        "transaction-used-up",
        "The handle after `rollback()`",
        results([caught("Error", "Cannot put() on rolled back transaction"), {}]),
        call(["catch", [["transaction", [["rollback"], ["put", "key", 1]]]]], LIST),
    ),
    one(
        STORED,
        "transaction-without-handle",
        "`storage.put` within a transaction takes part in it",
        results([caught("Error", "boom"), {}]),
        call(["catch", [["transaction and storage", [["put", "key", 1], BOOM]]]], LIST),
    ),
    one(
        STORED,
        "transaction-nested",
        "A nested one that throws and is caught undoes itself only",
        results([[None, caught("Error", "boom"), None], {"a": 1, "c": 3}]),
        call(
            [
                "transaction and storage",
                [
                    ["put", "a", 1],
                    ["catch", [["transaction and storage", [["put", "b", 2], BOOM]]]],
                    ["put", "c", 3],
                ],
            ],
            LIST,
        ),
    ),
    one(
        STORED,
        "delete-all",
        "`deleteAll` removes keys and SQL tables",
        results([[], None, None, {}, caught("Error", "no such table: t: SQLITE_ERROR")]),
        call(["sql", "CREATE TABLE t (x)"], FILLED, ["deleteAll"], LIST, ["catch", [["sql", "SELECT * FROM t"]]]),
    ),
    one(
        STORED,
        "kv",
        "`storage.kv`: the same data, without await",
        results([None, 1, 1, True, False, None, {"a": 1, "b": 2}]),
        call(
            ["kv", "put", "key", 1],
            ["kv", "get", "key"],
            ["get", "key"],
            ["kv", "delete", "key"],
            ["kv", "delete", "key"],
            ["put", {"b": 2, "a": 1}],
            ["kv", "list"],
        ),
    ),
    one(
        STORED,
        "transaction-sync",
        "`transactionSync`: rolled back on an error, and nests",
        results([caught("Error", "boom"), [None, caught("Error", "boom"), None], {"a": 1, "c": 3}]),
        call(
            ["catch", [["transactionSync", [["kv", "put", "z", 1], ["throw now", "Error", "boom"]]]]],
            [
                "transactionSync",
                [
                    ["kv", "put", "a", 1],
                    ["catch now", [["transactionSync", [["kv", "put", "b", 2], ["throw now", "Error", "boom"]]]]],
                    ["kv", "put", "c", 3],
                ],
            ],
            LIST,
        ),
    ),
)

TABLED: Group = "SQL of an object"


def sql(id: str, title: str, expected: list[Any], *ops: Op, **fields: Any) -> Scenario:
    """A scenario of one call with SQL."""
    return one(TABLED, id, title, results(expected), call(*ops), **fields)


def failing(query: str, *values: Any, op: str = "sql") -> Op:
    """A query whose error is looked at."""
    return ["catch", [[op, query, *values]]]


WRONG_COUNT = caught("Error", "Wrong number of parameter bindings for SQL query.")
TRANSACTIONS = (
    "To execute a transaction, please use the state.storage.transaction() or state.storage.transactionSync() APIs instead of the "
    "SQL BEGIN TRANSACTION or SAVEPOINT statements. The JavaScript API is safer because it will automatically roll back on exceptions, "
    "and because it interacts correctly with Durable Objects' automatic atomic write coalescing."
)
UNIQUE: Op = ["sql", "CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT UNIQUE, n INTEGER NOT NULL DEFAULT 1 CHECK (n > 0))"]

SQL = (
    sql(
        "sql-rows",
        "Rows: whole numbers, REAL, text, null, bytes",
        [[], [], [{"i": 1, "r": 1.5, "t": "é", "n": None, "b": {"bytes": [1, 2]}}]],
        ["sql", "CREATE TABLE t (i INTEGER, r REAL, t TEXT, n, b BLOB)"],
        ["sql", "INSERT INTO t VALUES (?, ?, ?, ?, ?)", 1, 1.5, "é", None, {"bytes": [1, 2]}],
        ["sql", "SELECT * FROM t"],
    ),
    sql(
        "sql-bindings",
        "Types of bindings: numbers are REAL, true is a text",
        [[{"a": "real", "b": "real", "c": "text", "d": "null", "e": "blob", "f": "text"}], [{"t": "true"}]],
        [
            "sql",
            "SELECT typeof(?) a, typeof(?) b, typeof(?) c, typeof(?) d, typeof(?) e, typeof(?) f",
            1,
            1.5,
            "x",
            None,
            {"bytes": [1]},
            True,
        ],
        ["sql", "SELECT ? t", True],
    ),
    sql(
        "sql-one",
        "`one()`: a row, none, several",
        [
            {"x": 1},
            caught("Error", "Expected exactly one result from SQL query, but got no results."),
            caught("Error", "Expected exactly one result from SQL query, but got multiple results."),
        ],
        ["sql one", "SELECT 1 AS x"],
        failing("SELECT 1 AS x WHERE 0", op="sql one"),
        failing("SELECT 1 AS x UNION SELECT 2", op="sql one"),
    ),
    sql(
        "sql-raw",
        "`raw()` keeps columns of one name, objects the last of them",
        [[["x", "x", "y"], [[1, 2, 3]]], [{"x": 2, "y": 3}]],
        ["sql raw", "SELECT 1 AS x, 2 AS x, 3 AS y"],
        ["sql", "SELECT 1 AS x, 2 AS x, 3 AS y"],
    ),
    sql("sql-twice", "A cursor is read once", [[[{"x": 1}], []]], ["sql twice", "SELECT 1 AS x"]),
    sql(
        "sql-several",
        "Several statements: all run, the rows are the last one's; only that may have parameters",
        [
            [{"x": 1}],
            caught("Error", "When executing multiple SQL statements in a single call, only the last statement can have parameters."),
        ],
        ["sql", "CREATE TABLE t (x); INSERT INTO t VALUES (1); SELECT * FROM t"],
        failing("INSERT INTO t VALUES (?); SELECT * FROM t WHERE x = ?", 1, 2),
    ),
    sql(
        "sql-empty",
        "Nothing, or only a comment",
        [caught("Error", "SQL code did not contain a statement.")] * 2,
        failing(""),
        failing("-- nothing"),
    ),
    sql(
        "sql-counts",
        "The number of parameters; `?2, ?1` goes by position",
        [WRONG_COUNT, WRONG_COUNT, WRONG_COUNT, [{"a": "two", "b": "one"}]],
        failing("SELECT ?"),
        failing("SELECT ?", 1, 2),
        failing("SELECT 1", 1),
        ["sql", "SELECT ?2 a, ?1 b", "one", "two"],
    ),
    sql(
        "sql-errors",
        "Errors of SQLite, in its words",
        [
            caught("Error", 'near "SELEC": syntax error at offset 0: SQLITE_ERROR'),
            caught("Error", "no such table: nope: SQLITE_ERROR"),
            caught("Error", "no such column: x at offset 7: SQLITE_ERROR"),
            caught("Error", "incomplete input: SQLITE_ERROR"),
        ],
        failing("SELEC 1"),
        failing("SELECT * FROM nope"),
        failing("SELECT x"),
        failing("SELECT"),
    ),
    sql(
        "sql-constraints",
        "Constraints",
        [
            [],
            [],
            caught("Error", "UNIQUE constraint failed: t.u: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_UNIQUE)"),
            caught("Error", "UNIQUE constraint failed: t.id: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_PRIMARYKEY)"),
            caught("Error", "CHECK constraint failed: n > 0: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_CHECK)"),
            caught("Error", "NOT NULL constraint failed: t.n: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_NOTNULL)"),
        ],
        UNIQUE,
        ["sql", "INSERT INTO t (id, u) VALUES (1, 'x')"],
        failing("INSERT INTO t (id, u) VALUES (2, 'x')"),
        failing("INSERT INTO t (id, u) VALUES (1, 'y')"),
        failing("INSERT INTO t (id, u, n) VALUES (3, 'z', 0)"),
        failing("INSERT INTO t (id, u, n) VALUES (4, 'a', NULL)"),
    ),
    sql(
        "sql-foreign-keys",
        "Foreign keys are on",
        [
            [{"foreign_keys": 1}],
            [],
            caught("Error", "FOREIGN KEY constraint failed: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_FOREIGNKEY)"),
        ],
        ["sql", "PRAGMA foreign_keys"],
        ["sql", "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p INTEGER REFERENCES p (id))"],
        failing("INSERT INTO c VALUES (1)"),
    ),
    sql(
        "sql-transactions",
        "BEGIN, COMMIT and SAVEPOINT are refused",
        [caught("Error", TRANSACTIONS)] * 3,
        failing("BEGIN"),
        failing("COMMIT"),
        failing("SAVEPOINT s"),
    ),
    sql(
        "sql-not-authorized",
        "ATTACH, temporary tables, the object's own tables, VACUUM",
        [
            caught("Error", "not authorized: SQLITE_AUTH"),
            caught("Error", "not authorized: SQLITE_AUTH"),
            caught("Error", "not authorized: SQLITE_AUTH"),
            caught("Error", "cannot VACUUM from within a transaction: SQLITE_ERROR"),
        ],
        failing("ATTACH 'x.db' AS other"),
        failing("CREATE TEMP TABLE t (x)"),
        failing("CREATE TABLE _cf_x (x)"),
        failing("VACUUM"),
    ),
    sql(
        "sql-sync-rollback",
        "`transactionSync` undoes SQL too",
        [[], caught("Error", "boom"), [{"n": 0}]],
        ["sql", "CREATE TABLE t (x)"],
        ["catch", [["transactionSync", [["sql", "INSERT INTO t VALUES (1)"], ["throw now", "Error", "boom"]]]]],
        ["sql", "SELECT count(*) n FROM t"],
    ),
    sql(
        "sql-written",
        "`rowsRead`, `rowsWritten`",
        [[], [0, 2], [2, 0]],
        ["sql", "CREATE TABLE t (x)"],
        ["sql counts", "INSERT INTO t VALUES (1), (2)"],
        ["sql counts", "SELECT * FROM t"],
    ),
    sql(
        "sql-functions",
        "FTS5 and JSON are there, REGEXP is not",
        [[], [], [{"x": "the quick fox"}], [{"j": 2}], caught("Error", "no such function: REGEXP at offset 11: SQLITE_ERROR")],
        ["sql", "CREATE VIRTUAL TABLE f USING fts5 (x)"],
        ["sql", "INSERT INTO f VALUES ('the quick fox')"],
        ["sql", "SELECT x FROM f WHERE f MATCH 'quick'"],
        ["sql", "SELECT json_extract('{\"a\": [1, 2]}', '$.a[1]') j"],
        failing("SELECT 'a' REGEXP 'a'"),
    ),
)

ACTORS = (*ALARMS, *GATES, *CALLS, *STORAGE, *SQL)
