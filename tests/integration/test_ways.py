"""The same app by every way to it: child processes of the server, and HTTP under each framework; with a real server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import stepwell
from tests.integration.ways_app import FRAMEWORKS, PATH, Sum, add
from tests.support.processes import Process, Server, free_port, running, until

APP = Path(__file__).with_name("ways_app.py")
TIMEOUT_S = 60
KEY = "signkey-prod-12ab34cd"


@pytest.fixture(scope="module", params=["children", *FRAMEWORKS])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that knows the app."""
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "children":
        with running(Server(directory, f"{APP}:app", "--retry-interval", "1")) as server:
            yield server
        return
    with running(Server(directory, "--retry-interval", "1")) as server:
        port = free_port()
        env = {"STEPWELL_URL": server.url, "STEPWELL_DEV": "1", "PYTHONPATH": str(Path.cwd())}
        with running(Process([sys.executable, str(APP), request.param, str(port)], directory / "app.log", env=env)) as app:

            def synced() -> bool:
                assert app.popen.poll() is None, app.text()
                try:
                    answer = httpx.put(f"http://127.0.0.1:{port}{PATH}", follow_redirects=True)
                except httpx.TransportError:
                    return False
                assert answer.status_code == 200, answer.text
                return True

            until(synced, f"the app is synced: {app.text()}")
            yield server


def test_keys_that_are_being_replaced(tmp_path: Path) -> None:
    """A server with keys, an app whose first key is new and whose fallback is the server's: synced in band, called, answered, told."""
    port = free_port()
    keys = {"STEPWELL_SIGNING_KEY": "signkey-prod-ab12", "STEPWELL_SIGNING_KEY_FALLBACK": KEY, "STEPWELL_EVENT_KEY": "e"}
    options = ["--signing-key", KEY, "--event-key", "e", "--admin-token", "a"]
    options += ["-u", f"http://127.0.0.1:{port}{PATH}", "--poll-interval", "0.2"]
    with running(Server(tmp_path, *options, command="start")) as server:
        env = {"STEPWELL_URL": server.url, "STEPWELL_DEV": "0", "PYTHONPATH": str(Path.cwd()), **keys}
        with running(Process([sys.executable, str(APP), "flask", str(port)], tmp_path / "app.log", env=env)):

            def synced() -> bool:
                functions = server.ask("/api/functions", token="a")["functions"]
                return any(function["id"] == "ways-five" for function in functions)

            until(synced, "the app is synced")

            async def test() -> None:
                client = stepwell.App("ways", url=server.url, signing_key="signkey-prod-ab12", signing_key_fallback=KEY)
                begun, _ = await (await client.start("ways-five")).output("30s")
                assert begun == 1, "its checkpoints were taken"

            asyncio.run(asyncio.wait_for(test(), TIMEOUT_S))


def through(server: Server, test: Any) -> None:
    """Run a test with an app that reaches the server over HTTP."""

    async def main() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await test(stepwell.App("ways", url=server.url))

    asyncio.run(main())


def test_steps_in_a_row_take_one_call(server: Server) -> None:
    """Five steps: the function begins once."""

    async def test(client: stepwell.App) -> None:
        begun, _ = await (await client.start("ways-five")).output("30s")
        assert begun == 1

    through(server, test)


def test_a_run_is_paused_between_its_steps(server: Server) -> None:
    """The call that is out ends with the step that runs; the others are run after the resumption, none of them twice."""

    async def test(client: stepwell.App) -> None:
        run = await client.start("ways-many")

        def steps() -> list[Any]:
            return list(server.ask(f"/api/runs/{run.id}")["steps"])

        while not await asyncio.to_thread(steps):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await run.pause()
        while await run.status() != "paused":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert 0 < len(await asyncio.to_thread(steps)) < 20
        await run.resume()
        assert await run.output("30s") == list(range(20))
        assert [step["tries"] for step in await asyncio.to_thread(steps)] == [1] * 20

    through(server, test)


@pytest.mark.parametrize("function", ["everything", "everything-plain"])
def test_every_tool(server: Server, function: str) -> None:
    """In an async function, and in a plain one."""

    async def test(client: stepwell.App) -> None:
        mark = f"{function}-1"
        run = await client.start(f"ways-{function}", {"url": server.url, "run": mark}, id=mark)
        assert (await client.start(f"ways-{function}", {"url": server.url, "run": mark}, id=mark)).id == run.id
        signalled = False
        while await run.status() not in ("completed", "failed"):
            # Whichever of the two it waits for by now; the other finds nobody.
            await client.send("ways/go", {"run": mark, "n": 7})
            signalled = signalled or await client.way.signal(f"go-{mark}", b'"now"') == run.id
            await asyncio.sleep(0.02)
        assert signalled
        assert await run.output() == [True, 3, 200, 7, "now", None]
        (event,) = await run.events()
        assert event.data["run"] == mark

    through(server, test)


def test_races(server: Server) -> None:
    """The first one wins, and what is left does not hold up the run, nor its end."""

    async def test(client: stepwell.App) -> None:
        run = await client.start("ways-race", {"run": "r"})
        while await run.status() not in ("completed", "failed"):
            await client.send("ways/raced", {"run": "r", "n": 7})
            await asyncio.sleep(0.02)
        assert await run.output() == ["quick", "7", "last"]

    through(server, test)


def test_a_run_started_in_a_step(server: Server) -> None:
    """By the app's own way to its server, async and blocking; and from outside, by the function, typed."""

    async def test(client: stepwell.App) -> None:
        assert await (await client.start("ways-starts")).output("30s") == 15
        assert await (await client.start(add, {"numbers": [1]})).output("30s") == Sum(1)
        with pytest.raises(stepwell.NotFound, match="ways-gone"):
            await client.start("ways-gone")
        with pytest.raises(stepwell.NotFound):
            await client.way.cancel("01JZZZZZZZZZZZZZZZZZZZZZZZ")

    through(server, test)
