"""Queues and their consumers by every way to an app: child processes, HTTP, a connected worker, the engine in one's own process."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import stepwell
from tests.integration import queues_app
from tests.integration.queues_app import PATH, Job, Order
from tests.support.processes import Process, Server, free_port, running, until

HERE = Path(__file__).parent
APP = HERE / "queues_app.py"
WAYS = ("children", "http", "connect", "embedded")
TIMEOUT_S = 60
PAUSE_S = 0.02


class Rig:
    """An app with its queues by one way, and what its consumers noted."""

    def __init__(self, app: stepwell.App, notes: Path, server: Server | None) -> None:
        self.app, self.notes_file, self.server = app, notes, server
        self.jobs, self.plain, self.orders = (app.queue(name) for name in ("jobs", "plain", "orders"))

    def notes(self) -> list[dict[str, Any]]:
        """What the consumers noted so far."""
        return [json.loads(line) for line in self.notes_file.read_text().splitlines()] if self.notes_file.exists() else []

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The server's answer."""
        status, answer = await self.app.way.ask(method, path, b"" if body is None else json.dumps(body).encode())
        assert status == 200, answer
        return json.loads(answer)

    async def until(self, look: Callable[[], Awaitable[Any] | Any], what: str) -> Any:
        """As soon as something is found."""
        async with asyncio.timeout(30):
            while True:
                found = look()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(PAUSE_S)

    async def waiting(self, queue: str, count: int) -> None:
        """Returns when so many messages wait in a queue, and none is out."""

        async def look() -> bool:
            told = {one["name"]: one for one in (await self.ask("GET", "/api/queues"))["queues"]}
            return queue in told and (told[queue]["waiting"], told[queue]["messages_out"]) == (count, 0)

        await self.until(look, f"{count} messages wait in {queue}")


@asynccontextmanager
async def reached(way: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """The app by one way."""
    notes = directory / "notes"
    monkeypatch.setenv("NOTES", str(notes))
    if way == "embedded":
        async with queues_app.app.engine(db=str(directory / "own.db")):
            yield Rig(queues_app.app, notes, None)
        return
    async with AsyncExitStack() as stack:
        if way == "children":
            server = stack.enter_context(running(Server(directory, f"{APP}:app")))
        else:
            port = free_port()
            options = ("-u", f"http://127.0.0.1:{port}{PATH}", "--poll-interval", "0.2") if way == "http" else ()
            server = stack.enter_context(running(Server(directory, *options)))
            args = [str(APP), str(port)] if way == "http" else ["-m", "stepwell", "worker", f"{APP}:app", "--url", server.url]
            env = {"STEPWELL_URL": server.url, "STEPWELL_DEV": "1"}
            stack.enter_context(running(Process([sys.executable, *args], directory / "app.log", env=env)))
        await asyncio.to_thread(server.synced, "queues-work")
        yield Rig(stepwell.App("queues", url=server.url), notes, server)


@pytest.mark.parametrize("way", WAYS)
def test_batches_retries_dead_letters_and_runs(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One story by each way: what is sent arrives typed, in batches of at most their size, again where it is asked for, at last as a
    dead letter that is sent back; a message starts a run where a queue is a trigger."""

    async def story() -> None:
        async with reached(way, tmp_path, monkeypatch) as rig, asyncio.timeout(TIMEOUT_S):
            await consumed(rig)
            await retried(rig)
            await given_up(rig)
            await of_other_types(rig)
            await starts_runs(rig)
            if rig.server is not None:
                log = rig.server.text()
                assert "QUEUE jobs 3/3 (" in log
                assert 'The consumer of queue "jobs" failed: ValueError: tenant of 21 is broken' in log
                assert 'on queue "jobs" to dead letter queue "jobs-dead" after 2 failed attempts...' in log

    asyncio.run(story())


async def consumed(rig: Rig) -> None:
    """Five messages and a late one: each once, in batches of three at most."""
    ids = await rig.jobs.send_batch([Job(n) for n in range(3)])
    ids += await rig.jobs.send_batch([Job(3), stepwell.message({"n": 4}, delay="300ms")])
    notes = await rig.until(lambda: len(rig.notes()) == 5 and rig.notes(), "five messages are consumed")
    assert {note["id"]: note["n"] for note in notes} == dict(zip(ids, range(5), strict=True))
    assert {note["attempts"] for note in notes} == {1} and max(note["of"] for note in notes) == 3
    assert {note["queue"] for note in notes} == {"jobs"} and notes[-1]["n"] == 4
    await rig.waiting("jobs", 0)


async def retried(rig: Rig) -> None:
    """The one that asks for it comes again, the other does not."""
    await rig.jobs.send_batch([Job(10, "busy"), Job(11)])
    await rig.until(lambda: len(rig.notes()) == 8, "three more deliveries")
    await rig.waiting("jobs", 0)
    assert sorted((note["n"], note["attempts"]) for note in rig.notes()[5:]) == [(10, 1), (10, 2), (11, 1)]


async def given_up(rig: Rig) -> None:
    """It dies with the error, the acked one beside it does not; sent back when the fault is mended, it is consumed."""
    await rig.jobs.send_batch([Job(20), Job(21, "broken")])
    await rig.waiting("jobs-dead", 1)
    (letter,) = (await rig.ask("GET", "/api/queues/jobs-dead/messages"))["messages"]
    assert (letter["body"], letter["dead_of"]) == ({"n": 21, "tenant": "broken"}, "jobs")
    assert (letter["error"]["name"], letter["error"]["message"]) == ("ValueError", "tenant of 21 is broken")
    assert [note["attempts"] for note in rig.notes() if note["n"] == 21] == [1, 2]
    Path(f"{rig.notes_file}.mended").touch()
    where = {"where": "message.error.name == 'ValueError' && message.body.n == 21"}
    assert (await rig.ask("POST", "/api/queues/jobs-dead/messages/move", where))["moved"] == 1
    await rig.until(lambda: [note["attempts"] for note in rig.notes() if note.get("n") == 21] == [1, 2, 1], "it is consumed at last")
    await rig.waiting("jobs", 0)
    await rig.waiting("jobs-dead", 0)


async def of_other_types(rig: Rig) -> None:
    """A text and bytes, by a consumer that is not async."""
    await rig.plain.send("a text – with an é", content_type="text")
    await rig.plain.send(b"\x00\xff")
    notes = await rig.until(
        lambda: len(two := [note["plain"] for note in rig.notes() if "plain" in note]) == 2 and two, "both are consumed"
    )
    assert sorted(notes, key=str) == sorted(["a text – with an é", [0, 255]], key=str)


async def starts_runs(rig: Rig) -> None:
    """A run for each message."""
    await rig.orders.send_batch([Order("tea"), Order("cups")])

    async def ended() -> Any:
        runs = (await rig.ask("GET", "/api/runs?function=queues-fulfil"))["runs"]
        return runs if [run["status"] for run in runs] == ["completed"] * 2 else None

    runs = await rig.until(ended, "two runs end")
    traces = [await rig.ask("GET", f"/api/runs/{run['id']}") for run in runs]
    assert {trace["run"]["output"] for trace in traces} == {"TEA", "CUPS"}
    assert {trace["run"]["trigger"]["name"] for trace in traces} == {"stepwell/queue.orders"}
    await rig.waiting("orders", 0)


def test_a_function_of_an_unmodified_inngest_app_gets_a_run_for_each_message(tmp_path: Path) -> None:
    """Its trigger is the event `stepwell/queue.NAME`; the body is the event's data, or `body` of it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api/inngest"
    with running(Server(tmp_path, "-u", url, "--poll-interval", "0.2")) as server:
        args = [sys.executable, "-m", "uvicorn", "inngest_queue_app:app", "--port", str(port), "--log-level", "warning"]
        env = {"INNGEST_DEV": server.url, "INNGEST_BASE_URL": server.url}
        with running(Process(args, tmp_path / "app.log", env=env, cwd=HERE)):
            server.synced("theirs-each")
            messages = [{"body": {"n": 1}}, {"body": [1, 2]}, {"body": "a text", "content_type": "text"}]
            server.ask("/accounts/any/queues/theirs/messages/batch", {"messages": messages})

            def ended() -> list[dict[str, Any]]:
                runs = server.ask("/api/runs?function=theirs-each")["runs"]
                return [run for run in runs if run["status"] == "completed"]

            runs = until(lambda: len(ended()) == 3 and ended(), "three runs end")
            outputs = [server.ask(f"/api/runs/{run['id']}")["run"]["output"] for run in runs]
            assert {one["name"] for one in outputs} == {"stepwell/queue.theirs"}
            told = sorted((one["data"] for one in outputs), key=str)
            assert told == sorted([{"n": 1}, {"body": [1, 2]}, {"body": "a text"}], key=str)
            assert len(server.ask("/api/runs?function=theirs-each")["runs"]) == 3
