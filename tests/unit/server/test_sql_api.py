"""Databases by HTTP: D1's shapes, refusals that say what to do, the signing key."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from stepwell.protocol.signatures import bearer_hash
from stepwell.server import sql_api
from stepwell.server.auth import Keys
from tests.unit.server.house import House, within

KEY = "signkey-prod-12ab34cd"


async def query(house: House, *statements: Any, database: str = "jobs", **more: Any) -> httpx.Response:
    """Send statements: texts, or texts with values."""
    told = [{"sql": one} if isinstance(one, str) else {"sql": one[0], "params": list(one[1:])} for one in statements]
    return await house.client.post(f"/sql/{database}/query", json={"statements": told, **more})


def test_a_query() -> None:
    """Rows as objects by default, as arrays on request; what each statement did."""

    async def test(house: House) -> None:
        await query(house, "CREATE TABLE t (id INTEGER PRIMARY KEY, x REAL, b BLOB)")
        answer = await query(house, ("INSERT INTO t (x, b) VALUES (?, ?)", 1.0, {"base64": "AP8="}), "SELECT *, 1 AS id FROM t")
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
        inserted, selected = answer.json()["results"]
        meta = inserted.pop("meta")
        assert inserted == {"success": True, "results": []}
        assert meta.pop("duration") >= 0 and meta.pop("size_after") == 8192
        assert meta == {"served_by": "stepwell", "changes": 1, "last_row_id": 1, "changed_db": True, "rows_read": 0, "rows_written": 1}
        assert selected["results"] == [{"id": 1, "x": 1.0, "b": {"base64": "AP8="}}]
        assert b'"x":1.0' in answer.content, "a number with a point stays one"
        assert (selected["meta"]["changes"], selected["meta"]["changed_db"], selected["meta"]["rows_read"]) == (0, False, 1)
        answer = await query(house, "SELECT *, 1 AS id FROM t", form="arrays")
        (selected,) = answer.json()["results"]
        assert selected["results"] == {"columns": ["id", "x", "b", "id"], "rows": [[1, 1.0, {"base64": "AP8="}, 1]]}

    within(test)


def test_all_or_nothing() -> None:
    """A batch of which a statement fails leaves nothing; the error has SQLite's name as its code."""

    async def test(house: House) -> None:
        await query(house, "CREATE TABLE t (x UNIQUE)")
        answer = await query(house, "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (1)")
        text = "D1_ERROR: UNIQUE constraint failed: t.x: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_UNIQUE)"
        assert answer.status_code == 400
        assert answer.json() == {"code": "SQLITE_CONSTRAINT_UNIQUE", "data": None, "error": text, "status": 400}
        assert (await query(house, "SELECT count(*) AS n FROM t")).json()["results"][0]["results"] == [{"n": 0}]

    within(test)


def test_exec_and_the_list() -> None:
    """Statements one a line; a database is there once it was asked."""

    async def test(house: House) -> None:
        assert (await house.client.get("/sql")).json() == {"databases": []}
        answer = await house.client.post("/sql/jobs/exec", json={"sql": "CREATE TABLE t (x)\nINSERT INTO t VALUES (1)"})
        assert answer.status_code == 200 and answer.json()["count"] == 2 and answer.json()["duration"] > 0
        answer = await house.client.post("/sql/jobs/exec", json={"sql": "INSERT INTO t VALUES (2)\nSELEC"})
        assert answer.status_code == 400
        assert answer.json()["error"] == 'D1_EXEC_ERROR: Error in line 2: SELEC: near "SELEC": syntax error at offset 0: SQLITE_ERROR'
        await query(house, "SELECT 1", database="A-1_b")
        (first, second) = (await house.client.get("/sql")).json()["databases"]
        assert (first["name"], second["name"]) == ("A-1_b", "jobs") and second["file_size"] > 0
        assert (await query(house, "SELECT count(*) AS n FROM t")).json()["results"][0]["results"] == [{"n": 1}]

    within(test)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/sql/a.b/query", {"statements": [{"sql": "SELECT 1"}]}, "'a.b' is no name of a database"),
        (f"/sql/{'x' * 65}/exec", {"sql": "SELECT 1"}, "no name of a database"),
        ("/sql/jobs/query", {"sql": "SELECT 1"}, "the body is not what is asked for here"),
        ("/sql/jobs/query", {"statements": []}, "D1_ERROR: No SQL statements detected."),
        ("/sql/jobs/query", {"statements": [{"sql": "SELECT ?", "params": [{"a": 1}]}]}, "D1_TYPE_ERROR: Type 'dict' not supported"),
        ("/sql/jobs/query", {"statements": [{"sql": "SELECT ?"}]}, "D1_ERROR: Wrong number of parameter bindings for SQL query."),
        ("/sql/jobs/query", {"statements": [{"sql": "ATTACH 'a' AS b"}]}, "D1_ERROR: not authorized: SQLITE_AUTH"),
        ("/sql/jobs/exec", {}, "the body is not what is asked for here"),
    ],
)
def test_refusals(path: str, body: Any, words: str) -> None:
    """Say what is wrong, and how it should be."""

    async def test(house: House) -> None:
        answer = await house.client.post(path, json=body)
        assert answer.status_code == 400 and words in answer.json()["error"]

    within(test)


def test_answers_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be told is not done."""
    monkeypatch.setattr(sql_api, "ANSWER_BYTES_MAX", 2**20)

    async def test(house: House) -> None:
        await query(house, "CREATE TABLE t (x)")
        answer = await query(house, ("INSERT INTO t VALUES (?) RETURNING x", "x" * 2**20))
        assert answer.status_code == 400 and "the results are larger than 1 MiB: ask for fewer rows" in answer.json()["error"]
        assert (await query(house, "SELECT count(*) AS n FROM t")).json()["results"][0]["results"] == [{"n": 0}]

    within(test)


def test_the_signing_key_is_asked_for() -> None:
    """By every route."""

    async def test(house: House) -> None:
        for method, path in (("GET", "/sql"), ("POST", "/sql/jobs/query"), ("POST", "/sql/jobs/exec")):
            answer = await house.client.request(method, path, json={"sql": "SELECT 1"})
            assert answer.status_code == 401 and "signing key" in answer.json()["error"]
        headers = {"authorization": f"Bearer {bearer_hash(KEY)}"}
        assert (await house.client.get("/sql", headers=headers)).json() == {"databases": []}

    within(test, keys=Keys(signing_key=KEY), kind="cloud")
