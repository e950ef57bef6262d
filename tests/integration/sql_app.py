"""An app that uses databases, in every way that the SDK has; what it finds is returned as JSON."""

from __future__ import annotations

from typing import Any

import stepwell

app = stepwell.App("sqlway")

EXPECTED = {
    "exec": 2,
    "inserted": [1, 1, True],
    "rows": [[1, "a", True], [2, "b", False]],
    "length": 2,
    "first": {"id": 1, "name": "a", "data": "00ff"},
    "column": "b",
    "nothing": None,
    "raw": [["id", "id"], [1, "x"], [2, "x"]],
    "types": ["int", "float", "str", "bytes", "NoneType", "int", 2**63 - 1],
    "batch": [2, 3],
    "errors": [
        "D1_ERROR: UNIQUE constraint failed: jobs.name: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_UNIQUE)",
        "D1_ERROR: no such table: nope: SQLITE_ERROR",
        "D1_COLUMN_NOTFOUND: Column not found (zz)",
        "D1_ERROR: Wrong number of parameter bindings for SQL query.",
        "D1_EXEC_ERROR: Error in line 1: INSERT INTO jobs: incomplete input: SQLITE_ERROR",
        "D1_ERROR: No SQL statements detected.",
    ],
    "code": "SQLITE_CONSTRAINT_UNIQUE",
    "count": 2,
}


async def everything(client: stepwell.App, name: str) -> dict[str, Any]:
    """Use a database that nobody has used before."""
    db = client.sql(name)
    found: dict[str, Any] = {}
    script = "CREATE TABLE jobs (id INTEGER PRIMARY KEY, name TEXT UNIQUE, data BLOB)\nCREATE INDEX by_name ON jobs (name)"
    found["exec"] = (await db.exec(script)).count
    insert = db.prepare("INSERT INTO jobs (name, data) VALUES (?, ?)")
    meta = (await insert.bind("a", b"\x00\xff").run()).meta
    found["inserted"] = [meta.changes, meta.last_row_id, meta.changed_db]
    await insert.bind("b", None).run()
    rows = await db.prepare("SELECT id, name, data = x'00ff' AS same FROM jobs ORDER BY id").all()
    found["rows"] = [[row["id"], row["name"], bool(row["same"])] for row in rows]
    found["length"] = len(rows)
    first = await db.prepare("SELECT * FROM jobs WHERE name = ?").bind("a").first()
    assert first is not None
    found["first"] = {**first, "data": first["data"].hex()}
    found["column"] = await db.prepare("SELECT * FROM jobs WHERE id = ?").bind(2).first("name")
    found["nothing"] = await db.prepare("SELECT * FROM jobs WHERE id = ?").bind(9).first()
    found["raw"] = await db.prepare("SELECT id, 'x' AS id FROM jobs").raw(column_names=True)
    ((*values,),) = await db.prepare("SELECT ?, ?, ?, ?, ?, ?, ?").bind(1, 1.0, "é", b"b", None, True, 2**63 - 1).raw()
    found["types"] = [type(value).__name__ for value in values[:-1]] + [values[-1]]
    count = db.prepare("SELECT count(*) AS n FROM jobs")
    found["batch"] = [result[0]["n"] for result in await db.batch([count, insert.bind("c", 1.5), count]) if len(result)]
    await db.prepare("DELETE FROM jobs WHERE name = 'c'").run()
    found["errors"] = []
    for attempt in (
        db.batch([insert.bind("d", None), insert.bind("a", None)]),
        db.prepare("SELECT * FROM nope").all(),
        db.prepare("SELECT * FROM jobs").first("zz"),
        insert.bind("e").run(),
        db.exec("INSERT INTO jobs\nVALUES (9, 'z', NULL)"),
        db.batch([]),
    ):
        try:
            await attempt
        except stepwell.SqlError as error:
            found["errors"].append(str(error))
            found.setdefault("code", error.code)
    found["count"] = await count.first("n")
    return found


def blocking(client: stepwell.App, name: str) -> list[Any]:
    """The same from code that is not async."""
    db = client.sql(name)
    done = db.exec_sync("CREATE TABLE t (x UNIQUE)\nINSERT INTO t VALUES (1)").count
    insert = db.prepare("INSERT INTO t VALUES (?)")
    changes = [result.meta.changes for result in db.batch_sync([insert.bind(2), insert.bind(3)])]
    select = db.prepare("SELECT x FROM t ORDER BY x")
    try:
        insert.bind(1).run_sync()
        refused = ""
    except stepwell.SqlError as error:
        refused = error.code
    return [done, changes, [row["x"] for row in select.all_sync()], select.first_sync(), select.first_sync("x"), select.raw_sync(), refused]


BLOCKING = [2, [1, 1], [1, 2, 3], {"x": 1}, 1, [[1], [2], [3]], "SQLITE_CONSTRAINT_UNIQUE"]


@app.function
async def use(ctx: stepwell.Context) -> Any:
    return await ctx.step.run("use", everything, app, ctx.event.data["name"])


@app.function
def use_plain(ctx: stepwell.SyncContext) -> Any:
    return ctx.step.run("use", blocking, app, ctx.event.data["name"])
