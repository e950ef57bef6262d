"""KV and D1: what they give and what they refuse."""

from __future__ import annotations

from typing import Any

from tests.compat.cloudflare.actor_scenarios import TRANSACTIONS
from tests.compat.cloudflare.scenario import Error, Observation, Op, Scenario, results


def kv(id: str, title: str, expected: Observation, *steps: Op, **fields: Any) -> Scenario:
    """A scenario of a KV namespace of its own."""
    return Scenario(id=id, group="KV", title=title, expected=expected, steps=list(steps), **fields)


def do(method: str, *args: Any, **options: Any) -> Op:
    """A method of the namespace."""
    return ["kv", method, list(args), options]


def refused(method: str, status: int, why: str) -> Error:
    """What KV says no with."""
    return Error("Error", f"KV {method} failed: {status} {why}")


NOTHING = {"value": None, "metadata": None, "cacheStatus": None}

KV = (
    kv(
        "kv-missing",
        "A missing key: null, whatever is asked for; deleting it is no error",
        results(None, None, None, NOTHING, None),
        do("get", "key"),
        do("get", "key", "json"),
        do("get", "key", "arrayBuffer"),
        do("getWithMetadata", "key"),
        do("delete", "key"),
    ),
    kv(
        "kv-values",
        "A value as text, as JSON and as bytes",
        results(None, '{"a": [1, null]}', {"a": [1, None]}, {"bytes": list(b'{"a": [1, null]}')}, {"a": [1, None]}, None, None),
        do("put", "key", '{"a": [1, null]}'),
        do("get", "key"),
        do("get", "key", "json"),
        do("get", "key", "arrayBuffer"),
        do("get", "key", type="json", cacheTtl=60),
        do("delete", "key"),
        do("get", "key"),
    ),
    kv(
        "kv-no-json",
        "A value that is no JSON, asked for as JSON; a type that is not known",
        results(
            None,
            Error("SyntaxError", "Unexpected token 'o', \"not json\" is not valid JSON"),
            Error("TypeError", 'Unknown response type. Possible types are "text", "arrayBuffer", "json", and "stream".'),
        ),
        do("put", "key", "not json"),
        do("get", "key", "json"),
        do("get", "key", "xml"),
    ),
    kv(
        "kv-texts",
        "Numbers, booleans and null become their text; lists and dicts are refused",
        results(
            None,
            "1.5",
            None,
            "true",
            None,
            "null",
            Error("TypeError", "KV put() accepts only strings, ArrayBuffers, ArrayBufferViews, and ReadableStreams as values."),
            Error("TypeError", "KV put() accepts only strings, ArrayBuffers, ArrayBufferViews, and ReadableStreams as values."),
        ),
        do("put", "number", 1.5),
        do("get", "number"),
        do("put", "boolean", True),
        do("get", "boolean"),
        do("put", "null", None),
        do("get", "null"),
        do("put", "list", [1]),
        do("put", "dict", {"a": 1}),
    ),
    kv(
        "kv-metadata",
        "Metadata come back, are listed, and go with an overwrite; 1,024 bytes of JSON",
        results(
            None,
            {"value": "1", "metadata": {"a": [1]}, "cacheStatus": None},
            [{"name": "key", "metadata": {"a": [1]}}],
            None,
            {"value": "2", "metadata": None, "cacheStatus": None},
            None,
            refused("PUT", 413, "Metadata length of 1025 exceeds limit of 1024."),
        ),
        do("put", "key", "1", metadata={"a": [1]}),
        do("getWithMetadata", "key"),
        ["kv keys", {}],
        do("put", "key", "2"),
        do("getWithMetadata", "key"),
        do("put", "key", "3", metadata="x" * 1022),
        do("put", "key", "3", metadata="x" * 1023),
    ),
    kv(
        "kv-times",
        "Times to live below 60 s, in the past or too near",
        results(
            refused("PUT", 400, "Invalid expiration_ttl of 59. Expiration TTL must be at least 60."),
            refused("PUT", 400, "Invalid expiration_ttl of 0. Please specify integer greater than 0."),
            refused("PUT", 400, "Invalid expiration_ttl of -1. Please specify integer greater than 0."),
            refused(
                "PUT",
                400,
                "Invalid expiration of 1000. Please specify integer greater than the current number of seconds since the UNIX epoch.",
            ),
            None,
            refused("GET", 400, "Invalid cache_ttl of 29. Cache TTL must be at least 30."),
        ),
        do("put", "key", "1", expirationTtl=59),
        do("put", "key", "1", expirationTtl=0),
        do("put", "key", "1", expirationTtl=-1),
        do("put", "key", "1", expiration=1000),
        do("put", "key", "1", expirationTtl=60),
        do("get", "key", cacheTtl=29),
    ),
    kv(
        "kv-expirations",
        "An expiration is listed; it goes with an overwrite",
        results(None, [{"name": "key", "expiration": 2_000_000_000}], None, [{"name": "key"}]),
        do("put", "key", "1", expiration=2_000_000_000),
        ["kv keys", {}],
        do("put", "key", "2"),
        ["kv keys", {}],
    ),
    kv(
        "kv-keys",
        "Keys: not empty, not `.` or `..`, at most 512 bytes of UTF-8",
        results(
            Error("TypeError", "Key name cannot be empty."),
            Error("TypeError", '"." is not allowed as a key name.'),
            Error("TypeError", '".." is not allowed as a key name.'),
            None,
            refused("PUT", 414, "UTF-8 encoded length of 513 exceeds key length limit of 512."),
            refused("GET", 414, "UTF-8 encoded length of 514 exceeds key length limit of 512."),
            None,
            "1",
        ),
        do("put", "", "1"),
        do("put", ".", "1"),
        do("get", ".."),
        do("put", "x" * 512, "1"),
        do("put", "x" * 513, "1"),
        do("get", "é" * 257),
        do("put", "a/b?c#d%20\n é", "1"),
        do("get", "a/b?c#d%20\n é"),
    ),
    kv(
        "kv-list",
        "`list`: UTF-8 order, prefix, pages; a last page that is exactly full is complete",
        results(
            *[None] * 5,
            [[["a/1", "a/2", "a/3", "b", "é"], True]],
            [[["a/1", "a/2"], False], [["a/3"], True]],
            [[["a/1", "a/2", "a/3"], True]],
            [[[], True]],
            [[["a/1", "a/2", "a/3", "b", "é"], True]],
            refused("GET", 400, "Invalid key_count_limit of 1001. Please specify an integer less than 1000."),
        ),
        *[do("put", name, "1") for name in ("é", "b", "a/3", "a/1", "a/2")],
        ["kv list", {}],
        ["kv list", {"prefix": "a/", "limit": 2}],
        ["kv list", {"prefix": "a/", "limit": 3}],
        ["kv list", {"prefix": "none"}],
        ["kv list", {"limit": 0}],
        ["kv list", {"limit": 1001}],
    ),
    kv(
        "kv-many",
        "Many keys: in the order asked for, each once, null where missing; as JSON; 100 at most",
        results(
            None,
            None,
            {"b": "2", "none": None, "a": "1"},
            {"a": 1, "b": 2},
            {"b": {"value": "2", "metadata": {"m": 1}}, "none": None},
            refused("GET_BULK", 400, "You must request a minimum of 1 key"),
            refused("GET_BULK", 400, "You can request a maximum of 100 keys"),
            refused("GET_BULK", 400, '"arrayBuffer" is not a valid type. Use "json" or "text"'),
        ),
        do("put", "a", "1"),
        do("put", "b", "2", metadata={"m": 1}),
        do("get", ["b", "none", "a", "b"]),
        do("get", ["a", "b"], "json"),
        do("getWithMetadata", ["b", "none"]),
        do("get", []),
        do("get", [f"key {number}" for number in range(101)]),
        do("get", ["a"], "arrayBuffer"),
    ),
    kv(
        "kv-delete-many",
        "`delete` of a list deletes nothing",
        results(None, None, "1"),
        do("put", "a", "1"),
        do("delete", ["a", "b"]),
        do("get", "a"),
    ),
)


def d1(id: str, title: str, expected: Observation, *steps: Op, **fields: Any) -> Scenario:
    """A scenario of a database of its own."""
    return Scenario(id=id, group="D1", title=title, expected=expected, steps=list(steps), **fields)


def ask(method: str, sql: str, *bindings: Any, rest: tuple[Any, ...] = ()) -> Op:
    """A statement with its bindings; `rest` are arguments of the method."""
    return ["d1", method, sql, list(bindings) or None, *rest]


def told(*rows: Any, changes: int = 0, last_row_id: int = 0, changed_db: bool = False) -> dict[str, Any]:
    """A result with the part of its `meta` that is compared."""
    return {"success": True, "results": list(rows), "meta": {"changes": changes, "last_row_id": last_row_id, "changed_db": changed_db}}


TABLE: Op = ["d1 exec", "CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT UNIQUE)"]


def said(message: str) -> Error:
    """An error of D1."""
    return Error("Error", f"D1_ERROR: {message}")


WRONG_COUNT = said("Wrong number of parameter bindings for SQL query.")


def no_type(kind: str, value: str) -> Error:
    """A value that is no binding."""
    return Error("Error", f"D1_TYPE_ERROR: Type '{kind}' not supported for value '{value}'")


D1 = (
    d1(
        "d1-run",
        "`run()` and `all()`: rows, `changes`, `last_row_id`",
        results(
            1,
            told(changes=1, last_row_id=1, changed_db=True),
            told({"id": 2}, changes=1, last_row_id=2, changed_db=True),
            told({"id": 1, "x": "a"}, {"id": 2, "x": "b"}, last_row_id=2),
            told({"id": 1, "x": "a"}, {"id": 2, "x": "b"}, last_row_id=2),
            told(last_row_id=2),
            told(changes=2, last_row_id=2, changed_db=True),
        ),
        TABLE,
        ask("run", "INSERT INTO t (x) VALUES (?)", "a"),
        ask("run", "INSERT INTO t (x) VALUES (?) RETURNING id", "b"),
        ask("all", "SELECT * FROM t ORDER BY id"),
        ask("run", "SELECT * FROM t ORDER BY id"),
        ask("run", "UPDATE t SET x = 'c' WHERE id = 9"),
        ask("run", "DELETE FROM t"),
    ),
    d1(
        "d1-first",
        "`first()`: a row, a column, null; a column that is not there",
        results(
            {"a": 1, "b": "x"},
            "x",
            None,
            None,
            Error("Error", "D1_COLUMN_NOTFOUND: Column not found (zz)"),
        ),
        ask("first", "SELECT 1 AS a, 'x' AS b"),
        ask("first", "SELECT 1 AS a, 'x' AS b", rest=("b",)),
        ask("first", "SELECT 1 AS a WHERE 0"),
        ask("first", "SELECT 1 AS a WHERE 0", rest=("zz",)),
        ask("first", "SELECT 1 AS a", rest=("zz",)),
    ),
    d1(
        "d1-raw",
        "`raw()` keeps columns of one name, objects the last of them",
        results([[1, 2]], [["x", "x"], [1, 2]], [["x"]], told({"x": 2})),
        ask("raw", "SELECT 1 AS x, 2 AS x"),
        ask("raw", "SELECT 1 AS x, 2 AS x", rest=({"columnNames": True},)),
        ask("raw", "SELECT 1 AS x WHERE 0", rest=({"columnNames": True},)),
        ask("all", "SELECT 1 AS x, 2 AS x"),
    ),
    d1(
        "d1-bindings",
        "Bindings: numbers are REAL, booleans 1 and 0, bytes come back as lists of numbers",
        results(
            {"a": "real", "b": "real", "c": "text", "d": "null", "e": "blob", "f": "real"},
            {"t": 1, "f": 0},
            {"b": [1, 2]},
        ),
        ask(
            "first",
            "SELECT typeof(?) a, typeof(?) b, typeof(?) c, typeof(?) d, typeof(?) e, typeof(?) f",
            1,
            1.5,
            "x",
            None,
            {"bytes": [1]},
            True,
        ),
        ask("first", "SELECT ? t, ? f", True, False),
        ask("first", "SELECT ? b", {"bytes": [1, 2]}),
    ),
    d1(
        "d1-no-bindings",
        "What is no binding: an object",
        results(no_type("object", "[object Object]")),
        ask("first", "SELECT ?", {"a": 1}),
    ),
    d1(
        "d1-counts",
        "The number of parameters: 100 at most, as many as there are",
        results(
            WRONG_COUNT,
            WRONG_COUNT,
            WRONG_COUNT,
            {"a": "two", "b": "one"},
            None,
            said("too many SQL variables at offset 207: SQLITE_ERROR"),
        ),
        ask("first", "SELECT ?"),
        ask("first", "SELECT ?", 1, 2),
        ask("first", "SELECT 1", 1),
        ask("first", "SELECT ?2 a, ?1 b", "one", "two"),
        ask("first", f"SELECT {','.join('?' * 100)} WHERE 0", *[1] * 100),
        ask("first", f"SELECT {','.join('?' * 101)} WHERE 0", *[1] * 101),
    ),
    d1(
        "d1-empty",
        "Nothing, or only a comment",
        results(said("No SQL statements detected."), said("No SQL statements detected.")),
        ask("run", ""),
        ask("run", "-- nothing"),
    ),
    d1(
        "d1-errors",
        "Errors of SQLite, in its words",
        results(
            said('near "SELEC": syntax error at offset 0: SQLITE_ERROR'),
            said("no such table: nope: SQLITE_ERROR"),
            1,
            told(changes=1, last_row_id=1, changed_db=True),
            said("UNIQUE constraint failed: t.x: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_UNIQUE)"),
        ),
        ask("run", "SELEC 1"),
        ask("run", "SELECT * FROM nope"),
        TABLE,
        ask("run", "INSERT INTO t (x) VALUES ('a')"),
        ask("run", "INSERT INTO t (x) VALUES ('a')"),
    ),
    d1(
        "d1-several",
        "Several statements in one `prepare`: all run, the rows are the last one's",
        results({"x": 1}),
        ask("first", "CREATE TABLE t (x); INSERT INTO t VALUES (1); SELECT * FROM t"),
    ),
    d1(
        "d1-foreign-keys",
        "Foreign keys are on, and stay on",
        results(
            {"foreign_keys": 1},
            2,
            said("FOREIGN KEY constraint failed: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_FOREIGNKEY)"),
            told(),
            {"foreign_keys": 1},
        ),
        ask("first", "PRAGMA foreign_keys"),
        ["d1 exec", "CREATE TABLE p (id INTEGER PRIMARY KEY)\nCREATE TABLE c (p INTEGER REFERENCES p (id))"],
        ask("run", "INSERT INTO c VALUES (1)"),
        ask("run", "PRAGMA foreign_keys = OFF"),
        ask("first", "PRAGMA foreign_keys"),
    ),
    d1(
        "d1-batch",
        "`batch`: results in order; one error undoes all; not empty",
        results(
            1,
            [told(changes=1, last_row_id=1, changed_db=True), told({"n": 1}, last_row_id=1)],
            said("UNIQUE constraint failed: t.x: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_UNIQUE)"),
            {"n": 1},
            said("No SQL statements detected."),
        ),
        TABLE,
        ["d1 batch", [["INSERT INTO t (x) VALUES (?)", ["a"]], ["SELECT count(*) n FROM t", []]]],
        ["d1 batch", [["INSERT INTO t (x) VALUES (?)", ["b"]], ["INSERT INTO t (x) VALUES (?)", ["a"]]]],
        ask("first", "SELECT count(*) n FROM t"),
        ["d1 batch", []],
    ),
    d1(
        "d1-exec",
        "`exec`: a statement a line, blank lines left out; lines are counted; an error undoes all",
        results(
            2,
            1,
            {"n": 3},
            Error("Error", "D1_EXEC_ERROR: Error in line 1: INSERT INTO t: incomplete input: SQLITE_ERROR"),
            Error("Error", "D1_EXEC_ERROR: Error in line 1: INSERT INTO t VALUES (4): no such table: nope: SQLITE_ERROR"),
            {"n": 3},
        ),
        ["d1 exec", "CREATE TABLE t (x)\n\nINSERT INTO t VALUES (1)\n"],
        ["d1 exec", "INSERT INTO t VALUES (2); INSERT INTO t VALUES (3)"],
        ask("first", "SELECT count(*) n FROM t"),
        ["d1 exec", "INSERT INTO t\nVALUES (4)"],
        ["d1 exec", "INSERT INTO t VALUES (4)\nINSERT INTO nope VALUES (1)"],
        ask("first", "SELECT count(*) n FROM t"),
    ),
    d1(
        "d1-not-authorized",
        "BEGIN, ATTACH, D1's own tables",
        results(
            said(TRANSACTIONS),
            said("not authorized: SQLITE_AUTH"),
            said("not authorized: SQLITE_AUTH"),
        ),
        ask("run", "BEGIN"),
        ask("run", "ATTACH 'x.db' AS other"),
        ask("run", "CREATE TABLE _cf_x (x)"),
    ),
)

BINDINGS = (*KV, *D1)
