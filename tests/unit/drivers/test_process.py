"""The process driver with real children: how calls get there, and what becomes of them when a child dies, hangs or is replaced."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import stepwell
from stepwell.drivers.process import ProcessDriver
from stepwell.drivers.process import driver as driver_module
from stepwell.drivers.process.lock import await_no_children, holders_of
from stepwell.errors import Superseded
from stepwell.protocol.calls import Answer, CallRequest, Checkpoint, Lost, Ops, Returned
from stepwell.protocol.functions import parse_registration

SHOP = Path(__file__).with_name("shop.py")
LIMIT_S = 30.0


def request(function: str, run_id: str = "run", step_id: str = "step", steps: dict[str, bytes] | None = None, **data: Any) -> CallRequest:
    event = json.dumps({"name": "t/e", "id": "e", "ts": 1, "user": {}, "data": data}).encode()
    return CallRequest(
        run_id=run_id,
        function_id=f"shop-{function}",
        function_uuid="",
        app_id="shop",
        url="",
        step_id=step_id,
        attempt=0,
        max_attempts=1,
        request_version=2,
        stack=(),
        disable_immediate_execution=False,
        item_id=f"{run_id}-{step_id}",
        fence=1,
        request_id="r",
        events=(event,),
        steps=steps or {},
    )


async def durable(checkpoint: Checkpoint) -> None:
    """Makes nothing durable, and says that it has."""


def driven(test: Callable[[ProcessDriver], Awaitable[None]], target: str = f"{SHOP}:app", **options: Any) -> None:
    """Run a test with a driver that is started before and stopped after it."""

    async def main() -> None:
        driver = ProcessDriver(target, say=lambda text: None, **options)
        async with asyncio.timeout(LIMIT_S):
            await driver.start()
            try:
                await test(driver)
            finally:
                await driver.stop(2)

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; the test's limit of time bounds it."""
    while not condition():  # noqa: ASYNC110 – what is waited for happens in another process
        await asyncio.sleep(0.01)


def has_begun(driver: ProcessDriver) -> bool:
    """Whether a child has a call in hand and has said so."""
    return any(call.received for child in driver._children for call in child.calls.values())


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def returned(answer: Answer) -> Any:
    assert isinstance(answer, Returned), answer
    return json.loads(answer.data)


def test_the_registration_arrives_and_calls_are_shared_out() -> None:
    """Both children take calls; what a run parked in one goes back to it."""
    told: list[bytes] = []

    async def test(driver: ProcessDriver) -> None:
        assert driver.registration is not None and told == [driver.registration]
        names = {function.id for function in parse_registration(driver.registration).functions}
        assert {"shop-double", "shop-die"} <= names
        answers = await asyncio.gather(*(driver.call(request("double", f"r{n}", n=n), durable) for n in range(4)))
        assert all(isinstance(answer, Ops) and len(answer.ops) == 2 for answer in answers)
        homes = set()
        for n in range(4):
            memos = {op.id: b'{"data":%d}' % n for answer in answers if isinstance(answer, Ops) for op in answer.ops}
            # Without the first step's memo: only the parked coroutine knows its result.
            result = returned(await driver.call(request("double", f"r{n}", steps=memos, n=n), durable))
            assert result[:3] == [2 * n, n, n]
            homes.add(result[3])
        assert homes == set(driver.pids)

    driven(test, on_registration=told.append)


def test_checkpoints_wait_for_the_server_and_a_refusal_unwinds() -> None:
    """A step's successor starts when the step is durable; where the lease is over nothing more runs."""

    async def test(driver: ProcessDriver) -> None:
        seen: list[str] = []

        async def refuse(checkpoint: Checkpoint) -> None:
            seen.extend(op.user_id for op in checkpoint.ops)
            raise Superseded("somebody else has the run")

        answer = await driver.call(request("double", n=1), refuse)
        assert isinstance(answer, Lost) and seen == ["first"]

    driven(test)


@pytest.mark.parametrize(("how", "number"), [("kill", signal.SIGKILL), ("segfault", signal.SIGSEGV)])
def test_a_dying_child_loses_its_calls_and_is_replaced(tmp_path: Path, how: str, number: int) -> None:
    """The answer is `Lost` and names the signal; the next call finds a child; the number of children is restored."""

    async def test(driver: ProcessDriver) -> None:
        before = driver.pids
        told: dict[str, Any] = {"marker": str(tmp_path / "marker"), "how": how}
        answer = await driver.call(request("die", **told), durable)
        assert isinstance(answer, Lost) and answer.reason.endswith(f"died with signal {number.real}")
        assert returned(await driver.call(request("die", **told), durable)) == "survived"
        dead = int((tmp_path / "marker").read_text())
        assert dead in before
        await until(lambda: dead not in driver.pids and all(is_alive(pid) for pid in driver.pids))
        assert len(driver.pids) == 2

    driven(test)


def test_a_hogged_child_gets_no_calls_and_its_unseen_ones_go_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that holds the interpreter stops its own child alone; it is not killed, and serves again when it answers."""
    monkeypatch.setattr(driver_module, "BEAT_S", 0.15)

    async def test(driver: ProcessDriver) -> None:
        hogging = asyncio.ensure_future(driver.call(request("hog", "hog", seconds=2.5), durable))
        await until(lambda: has_begun(driver))
        others = await asyncio.gather(*(driver.call(request("double", f"r{n}", n=n), durable) for n in range(6)))
        assert all(isinstance(answer, Ops) for answer in others)
        assert not hogging.done()
        hog = returned(await hogging)
        assert hog in driver.pids
        await until(lambda: all(child.takes_calls for child in driver._children))

    driven(test)


def test_while_every_child_is_hogged_calls_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are made when one answers, and none is lost."""
    monkeypatch.setattr(driver_module, "BEAT_S", 0.1)

    async def test(driver: ProcessDriver) -> None:
        hogging = asyncio.ensure_future(driver.call(request("hog", "hog", seconds=1), durable))
        await until(lambda: not driver._children[0].takes_calls)
        waiting = asyncio.ensure_future(driver.call(request("double", n=1), durable))
        assert isinstance(await waiting, Ops)
        assert isinstance(await hogging, Returned)

    driven(test, children=1)


def test_children_die_with_a_killed_server(tmp_path: Path) -> None:
    """Also one that burns CPU with the interpreter held, and what user code forked is not in the way of the next server."""
    lock = tmp_path / "children.lock"
    program = textwrap.dedent(
        f"""
        import asyncio, sys
        sys.path.insert(0, {str(SHOP.parent)!r})
        import test_process as here
        from stepwell.drivers.process import ProcessDriver

        async def main():
            driver = ProcessDriver({str(SHOP)!r}, lock_path={str(lock)!r}, say=lambda text: None)
            await driver.start()
            forked = here.returned(await driver.call(here.request("fork", "fork", seconds=60), here.durable))
            calls = [asyncio.ensure_future(driver.call(here.request("hog", "hog", seconds=60), here.durable))]
            await here.until(lambda: here.has_begun(driver))
            print(*driver.pids, forked, flush=True)
            await asyncio.gather(*calls)

        asyncio.run(main())
        """
    )
    server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    *children, forked = map(int, line.split())
    try:
        assert len(children) == 2 and all(is_alive(pid) for pid in children)
        assert holders_of(lock) == sorted(children)
        server.kill()
        server.wait()

        async def gone() -> None:
            async with asyncio.timeout(LIMIT_S):
                await until(lambda: not any(is_alive(pid) for pid in children))
                assert is_alive(forked), "the fork left the group and lives"
                await await_no_children(lock, pytest.fail)

        asyncio.run(gone())
    finally:
        server.kill()
        server.stdout.close()
        os.kill(forked, signal.SIGKILL)


def test_a_new_server_ends_children_that_hold_the_lock_too_long(tmp_path: Path) -> None:
    """It names them first."""
    lock = tmp_path / "children.lock"
    program = f"import fcntl, time; f = open({str(lock)!r}, 'w'); fcntl.flock(f, fcntl.LOCK_SH); print('held', flush=True); time.sleep(60)"
    old = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, process_group=0)
    assert old.stdout is not None and old.stdout.readline() == "held\n"
    said: list[str] = []
    asyncio.run(await_no_children(lock, said.append, wait_s=0.2))
    assert old.wait(timeout=LIMIT_S) == -signal.SIGKILL
    old.stdout.close()
    assert f"(process {old.pid})" in said[0]


def test_reload_brings_new_code_and_lets_steps_finish(tmp_path: Path) -> None:
    """A step in hand finishes and is made durable, its call is handed back, and the new children have the new code."""
    code = "import stepwell\nfrom shop import *\n@app.function(trigger='t/e', id='version')\nasync def version(ctx):\n    return {}\n"
    (tmp_path / "shop.py").write_text(SHOP.read_text())
    (tmp_path / "shop_app.py").write_text(code.format(1))
    told: list[bytes] = []

    async def test(driver: ProcessDriver) -> None:
        old = driver.pids
        assert returned(await driver.call(request("version"), durable)) == 1
        started, gate = tmp_path / "started", tmp_path / "gate"
        stored: list[str] = []

        async def store(checkpoint: Checkpoint) -> None:
            stored.extend(op.user_id for op in checkpoint.ops)

        long = asyncio.ensure_future(driver.call(request("long", "long", started=str(started), gate=str(gate)), store))
        await until(started.exists)
        (tmp_path / "shop_app.py").write_text(code.format(2))
        assert await driver.reload()
        assert not set(driver.pids) & set(old)
        assert returned(await driver.call(request("version"), durable)) == 2
        gate.touch()
        answer = await long
        assert isinstance(answer, Lost) and "handed it back" in answer.reason and stored == ["first"]
        await until(lambda: not any(is_alive(pid) for pid in old))

    driven(test, target=f"{tmp_path / 'shop_app.py'}:app", on_registration=told.append)
    assert len(told) == 1, "the functions did not change"


def test_reload_kills_what_does_not_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its seconds a step that goes on is lost with its child."""
    monkeypatch.setattr(driver_module, "RELOAD_S", 0.2)

    async def test(driver: ProcessDriver) -> None:
        started = tmp_path / "started"
        long = asyncio.ensure_future(driver.call(request("long", started=str(started), gate=str(tmp_path / "never")), durable))
        await until(started.exists)
        assert await driver.reload()
        answer = await long
        assert isinstance(answer, Lost) and answer.reason.endswith("died with signal 9")

    driven(test)


def test_a_broken_app_is_told_at_start_and_survived_at_reload(tmp_path: Path) -> None:
    """The message is the user's traceback; at a reload the old children go on."""
    app = tmp_path / "broken.py"
    app.write_text("import stepwell\n\napp = stepwell.App('shop')\n@app.function(trigger='t/e')\nasync def ok(ctx):\n    return 1\n")
    problems: list[str] = []

    async def test(driver: ProcessDriver) -> None:
        old = driver.pids
        app.write_text("import stepwell\n\nthis_name_is_not_there\n")
        assert not await driver.reload()
        assert driver.pids == old and returned(await driver.call(request("ok"), durable)) == 1

    driven(test, target=str(app), on_problem=problems.append)
    assert "broken.py could not be imported:" in problems[0] and "NameError: name 'this_name_is_not_there'" in problems[0]
    assert "stepwell/sdk" not in problems[0]

    async def start(target: str) -> None:
        await ProcessDriver(target).start()

    for target, message in (
        (str(app), "this_name_is_not_there"),
        (str(tmp_path / "nothing.py"), "there is no file"),
        ("no_such_module:app", "there is no module 'no_such_module'"),
        (f"{SHOP}:double", "has no app 'double'"),
    ):
        with pytest.raises(stepwell.UsageError, match=message):
            asyncio.run(start(target))


def test_children_ask_the_server_through_their_socket() -> None:
    """Signals, starts and runs: what the server says comes back, refusals as what they are."""
    asked: list[tuple[str, str, Any]] = []
    answers: dict[str, tuple[int, Any]] = {
        "/v1/signals": (404, {"error": "nobody waits", "status": 404}),
        "/invoke/other-work": (200, {"id": "01JEVENT", "run_id": "01JRUN", "status": 200}),
        "/v1/runs/01JRUN?wait=25000ms": (
            200,
            {"data": {"status": "Failed", "event_id": "01JEVENT", "output": {"name": "E", "message": "no"}}},
        ),
    }

    async def on_api(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        asked.append((method, path, json.loads(body or b"null")))
        status, answer = answers[path]
        return status, json.dumps(answer).encode()

    async def test(driver: ProcessDriver) -> None:
        assert returned(await driver.call(request("ask"), durable)) == ["None", "01JRUN", "no"]

    driven(test, on_api=on_api)
    assert asked == [
        ("POST", "/v1/signals", {"signal": "go", "data": {"n": 1}}),
        ("POST", "/invoke/other-work", {"data": {"n": 2}, "id": "w"}),
        ("GET", "/v1/runs/01JRUN?wait=25000ms", None),
    ]


def test_children_send_events_through_the_server() -> None:
    """From a step, from a thread, from the function: all by the socket; a refusal comes back as what it was."""
    bodies: list[Any] = []

    async def on_send(body: bytes, seed: str) -> list[str]:
        bodies.append(json.loads(body))
        return [f"id-{len(bodies)}"]

    async def test(driver: ProcessDriver) -> None:
        assert returned(await driver.call(request("send"), durable)) == ["id-1", "id-2", "id-3"]

    driven(test, on_send=on_send)
    assert [body[0]["data"] if isinstance(body, list) else body["data"] for body in bodies] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert bodies[0][0]["id"].startswith("run-"), "a step's event has an id of its own, for its tries"


def test_stop_is_graceful_within_its_deadline(tmp_path: Path) -> None:
    """A step that finishes in time is kept, its call handed back; then no child is left."""
    stored: list[str] = []

    async def main() -> None:
        driver = ProcessDriver(str(SHOP), say=lambda text: None)
        await driver.start()
        pids = driver.pids

        async def store(checkpoint: Checkpoint) -> None:
            stored.extend(op.user_id for op in checkpoint.ops)

        gate = tmp_path / "gate"
        call = asyncio.ensure_future(driver.call(request("long", started=str(tmp_path / "started"), gate=str(gate)), store))
        await until((tmp_path / "started").exists)
        stopping = asyncio.ensure_future(driver.stop(10))
        await asyncio.sleep(0)
        gate.touch()
        await stopping
        assert isinstance(await call, Lost)
        assert not any(is_alive(pid) for pid in pids)
        assert isinstance(await driver.call(request("double", n=1), durable), Lost)

    asyncio.run(main())
    assert stored == ["first"]


def test_an_abandoned_call_takes_its_coroutine_down(tmp_path: Path) -> None:
    """Whoever waited has gone: the child drops the run, and takes further calls."""

    async def test(driver: ProcessDriver) -> None:
        started = tmp_path / "started"
        call = asyncio.ensure_future(driver.call(request("long", started=str(started), gate=str(tmp_path / "gate")), durable))
        await until(started.exists)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert isinstance(await driver.call(request("double", "other", n=1), durable), Ops)
        assert not any(child.calls for child in driver._children)

    driven(test, children=1)
