"""Databases by each way that an app has to its engine: in its own process, in child processes of a server, over HTTP."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import stepwell
from stepwell.protocol.sql import SqlMeta
from tests.integration.sql_app import BLOCKING, EXPECTED, blocking, everything
from tests.support.processes import Server, running

APP = Path(__file__).with_name("sql_app.py")
TIMEOUT_S = 60


def embedded(test: Callable[[stepwell.App], Awaitable[None]], db: Path | None = None) -> None:
    """Run a test with the engine in this process."""

    async def main() -> None:
        app = stepwell.App("sqlway")
        async with asyncio.timeout(TIMEOUT_S), app.engine(db=db):
            await test(app)

    asyncio.run(main())


@pytest.mark.parametrize("kept", [True, False])
def test_in_ones_own_process(kept: bool, tmp_path: Path) -> None:
    """Over a file, where the database lies beside it, and in memory."""
    db = tmp_path / "t.db" if kept else None

    async def test(app: stepwell.App) -> None:
        assert await everything(app, "jobs") == EXPECTED
        assert await asyncio.to_thread(blocking, app, "plain") == BLOCKING
        with pytest.raises(stepwell.UsageError, match="would block the event loop"):
            app.sql("jobs").prepare("SELECT 1").all_sync()

    embedded(test, db)
    if db is not None:
        with sqlite3.connect(tmp_path / "t.db.sql" / "jobs.sqlite") as other:
            assert other.execute("SELECT name FROM jobs ORDER BY id").fetchall() == [("a",), ("b",)]
        other.close()

        async def again(app: stepwell.App) -> None:
            assert await app.sql("jobs").prepare("SELECT count(*) AS n FROM jobs").first("n") == 2

        embedded(again, db)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with the app in child processes."""
    with running(Server(tmp_path_factory.mktemp("sql"), f"{APP}:app", "--retry-interval", "1")) as server:
        yield server


def test_in_child_processes(server: Server) -> None:
    """From a step of an async function, and of a plain one."""

    async def main() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            client = stepwell.App("outside", url=server.url)
            assert await (await client.start("sqlway-use", {"name": "child"})).output("30s") == EXPECTED
            assert await (await client.start("sqlway-use-plain", {"name": "child-plain"})).output("30s") == BLOCKING

    asyncio.run(main())


def test_over_http(server: Server) -> None:
    """From outside; it is the same database that the children have."""

    async def main() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            client = stepwell.App("outside", url=server.url)
            assert await everything(client, "http") == EXPECTED
            run = await client.start("sqlway-use", {"name": "shared"})
            await run.output("30s")
            assert await client.sql("shared").prepare("SELECT count(*) AS n FROM jobs").first("n") == 2

    asyncio.run(main())
    assert blocking(stepwell.App("outside", url=server.url), "http-plain") == BLOCKING


def test_a_key_is_needed_where_the_server_has_one(tmp_path: Path) -> None:
    """What the server refuses is no error of SQL's."""
    key = "signkey-prod-12ab34cd"
    with running(Server(tmp_path, "--signing-key", key, "--event-key", "e", "--admin-token", "a", command="start")) as server:

        async def main() -> None:
            async with asyncio.timeout(TIMEOUT_S):
                assert await everything(stepwell.App("outside", url=server.url, signing_key=key), "jobs") == EXPECTED
                with pytest.raises(stepwell.ProtocolError, match="signing key") as refused:
                    await stepwell.App("outside", url=server.url).sql("jobs").prepare("SELECT 1").all()
                assert refused.value.status == 401

        asyncio.run(main())


def test_what_is_wrong_is_said_at_once() -> None:
    """Before anything is sent: names, values, statements of another database."""
    app = stepwell.App("none", url="http://127.0.0.1:9")
    for name in ("", "a.b", "x" * 65, None):
        with pytest.raises(stepwell.UsageError, match=r'app.sql\("jobs"\)'):
            app.sql(name)  # type: ignore[arg-type]
    db = app.sql("jobs")
    statement = db.prepare("SELECT ?")
    for value in ([1], {}, object(), 2**63, "\ud800"):
        with pytest.raises(stepwell.SqlError, match=r"^D1_TYPE_ERROR: Type '"):
            statement.bind(value)  # type: ignore[arg-type]
    for wrong in ([app.sql("other").prepare("SELECT 1")], ["SELECT 1"]):
        with pytest.raises(stepwell.UsageError, match="statements that this database has prepared"):
            asyncio.run(db.batch(wrong))  # type: ignore[arg-type]
    with pytest.raises(stepwell.UsageError, match="the SQL is a text"):
        db.prepare(None)  # type: ignore[arg-type]
    with pytest.raises(stepwell.UsageError, match="the SQL is a text"):
        asyncio.run(db.exec(b"SELECT 1"))  # type: ignore[arg-type]
    with pytest.raises(stepwell.SqlError, match="no Unicode text"):
        asyncio.run(db.exec("SELECT '\ud800'"))
    assert repr(db) == "<database jobs>" and repr(statement) == "<statement 'SELECT ?' of jobs>"


def test_a_statement_never_changes() -> None:
    """Values replace those before, in another statement."""
    statement = stepwell.App("none").sql("jobs").prepare("SELECT ?")
    one = statement.bind(1)
    two = one.bind(True, bytearray(b"a"))
    assert (statement.values, one.values, two.values) == ((), (1,), (1, b"a"))


def test_a_server_that_cannot_be_reached_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What became of the query is not known, so it is not sent again."""
    asked: list[int] = []

    async def authorized(method: str, url: str, keys: Any, *, headers: Any, body: bytes, tries: int) -> Any:
        asked.append(tries)
        raise stepwell.CallError("gone")

    monkeypatch.setattr("stepwell.sdk.http.authorized", authorized)
    with pytest.raises(stepwell.CallError, match="gone"):
        stepwell.App("none").sql("jobs").prepare("INSERT INTO t VALUES (1)").run_sync()
    assert asked == [1]


def test_what_is_not_sqls_own_error_is_told_as_what_it_is() -> None:
    """A busy server's refusal has its status; results say what they are."""

    class Busy:
        async def ask(self, method: str, path: str, body: bytes = b"", *, once: bool = False) -> tuple[int, bytes]:
            return answers.pop()

    answers = [(500, b"<html>"), (429, b'{"error": "too many queries", "status": 429}')]
    app = stepwell.App("none")
    app._engine = Busy()  # type: ignore[assignment]
    for status in (429, 500):
        with pytest.raises(stepwell.ProtocolError) as refused:
            asyncio.run(app.sql("jobs").prepare("SELECT 1").all())
        assert refused.value.status == status
    meta = '{"duration":1,"changes":0,"last_row_id":0,"changed_db":false,"size_after":0,"rows_read":1,"rows_written":0}'
    answers.append((200, f'{{"results":[{{"results":{{"columns":["a","b","b"],"rows":[[1,2,3]]}},"meta":{meta}}}]}}'.encode()))
    result = asyncio.run(app.sql("jobs").prepare("SELECT 1").all())
    assert result.success and list(result) == result.results == [{"a": 1, "b": 3}] and result[0]["a"] == 1
    assert result.columns == ("a", "b", "b") and repr(result) == "<1 rows, 0 changes>" and isinstance(result.meta, SqlMeta)
