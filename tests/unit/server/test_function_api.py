"""What people do with functions while work is queued: ask why it waits, pause, drain, resume, change limits, bound the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from stepwell.engine.inputs import AppSynced
from stepwell.engine.registry import Settings
from stepwell.protocol.calls import Answer, CallRequest, Failed, Ops, Returned
from stepwell.protocol.functions import Concurrency, FunctionConfig, Registration, Throttle, Trigger
from stepwell.protocol.ops import Op
from stepwell.runtime.node import Node
from stepwell.server.app import Server
from stepwell.server.auth import Keys
from stepwell.store.memory import MemoryStore

URL = "http://127.0.0.1:1/app"
LIMITED = {"concurrency": (Concurrency(limit=1, key="event.data.t"),)}


class Rig:
    """A node whose calls wait until they are let go, behind the server's API."""

    def __init__(self, node: Node, client: httpx.AsyncClient) -> None:
        self.node, self.client = node, client
        self.out: dict[str, asyncio.Future[Answer]] = {}
        self.changed = asyncio.Event()

    async def call(self, request: CallRequest, checkpoint: Any) -> Answer:
        """The app: it answers when the test says so."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.out[request.run_id] = future
        self.changed.set()
        try:
            return await future
        finally:
            self.out.pop(request.run_id, None)
            self.changed.set()

    async def until(self, condition: Callable[[], Any]) -> Any:
        """As soon as the condition holds of the calls that are out."""
        async with asyncio.timeout(10):
            while not (value := condition()):
                self.changed.clear()
                await self.changed.wait()
        return value

    async def sync(self, **settings: Any) -> None:
        """The app tells its one function."""
        config = FunctionConfig(id="a-f", name="f", triggers=(Trigger(event="x"),), url=URL, **settings)
        await self.node.submit(AppSynced(registration(config), "http"))

    async def send(self, count: int = 1, **data: Any) -> list[str]:
        """Send events; the ids of their runs, in order."""
        answer = await self.client.post("/e/k", json=[{"name": "x", "data": data}] * count)
        runs = [await self.node.reader.runs_of_event(event_id, 1) for event_id in answer.json()["ids"]]
        return [found[0].id for found in runs if found]

    async def why(self, run_id: str) -> dict[str, Any]:
        """The answer to the question."""
        answer = await self.client.get(f"/api/runs/{run_id}/why")
        told: dict[str, Any] = answer.json()
        return told

    async def do(self, what: str, body: Any = None, *, method: str = "POST") -> httpx.Response:
        """Something with the function."""
        return await self.client.request(method, f"/api/functions/a-f/{what}", json=body)


def registration(config: FunctionConfig) -> Registration:
    """An app of one function; its checksum is what it says."""
    return Registration(app_name="a", url=URL, sdk="", framework="", app_version="", functions=(config,), checksum=repr(config))


def with_rig(work: Callable[[Rig], Awaitable[None]], **options: Any) -> None:
    """Run a test against a node in memory."""

    async def main() -> None:
        rig: Rig
        node = Node(MemoryStore(), drivers={"http": lambda request, save: rig.call(request, save)}, settings=Settings(), **options)
        server = Server(node, Keys(), "dev")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=server), base_url="http://localhost") as client:
            rig = Rig(node, client)
            await node.start()
            try:
                await work(rig)
            finally:
                await node.stop()

    asyncio.run(main())


def test_a_full_key_is_named_with_who_holds_it() -> None:
    """The limit, its key and value, the run that has the slot, and how many are before."""

    async def work(rig: Rig) -> None:
        await rig.sync(**LIMITED)
        first, second, third = await rig.send(3, t="acme")
        await rig.until(lambda: first in rig.out)
        assert (await rig.why(first))["gate"] == "running"
        told = await rig.why(third)
        assert (told["gate"], told["limit"], told["running"], told["position"], told["holders"]) == ("concurrency", 1, 1, 1, [first])
        assert "event.data.t = acme" in told["sentence"]
        assert (await rig.why(second))["position"] == 0

    with_rig(work)


def test_a_throttle_foretells_its_starts() -> None:
    """The earliest start of each run in line is exact: a period apart, to the millisecond."""

    async def work(rig: Rig) -> None:
        await rig.sync(throttle=Throttle(limit=1, period_ms=60_000))
        runs = await rig.send(3)
        await rig.until(lambda: runs[0] in rig.out)
        second, third = await rig.why(runs[1]), await rig.why(runs[2])
        assert second["gate"] == third["gate"] == "throttle" and third["earliest_ms"] - second["earliest_ms"] == 60_000
        first = await rig.node.reader.run(runs[0])
        assert first is not None and first.started_ms is not None and second["earliest_ms"] - first.started_ms == 60_000

    with_rig(work)


def test_sleeping_waiting_backing_off_and_ended_runs_say_so() -> None:
    """Each with its step or time."""

    async def work(rig: Rig) -> None:
        await rig.sync(retries=1)
        answers = {
            "sleep": Ops(ops=(Op(op="Sleep", id="s", name="1h", display_name="nap"),), request_version=2),
            "event": Ops(ops=(Op(op="WaitForEvent", id="w", name="y", opts=b'{"timeout":"1h"}'),), request_version=2),
            "backoff": Failed(error=b'{"message":"no","name":"Error"}', retriable=True),
            "ended": Returned(data=b"1"),
        }
        for gate, answer in answers.items():
            (run_id,) = await rig.send()
            (await rig.until(lambda run_id=run_id: rig.out.get(run_id))).set_result(answer)
            await rig.until(lambda run_id=run_id: run_id not in rig.out)
            told = await rig.why(run_id)
            while told["gate"] == "running":  # the answer is on its way to its commit
                await asyncio.sleep(0)
                told = await rig.why(run_id)
            assert told["gate"] == gate, told
        assert (await rig.client.get("/api/runs/nobody/why")).status_code == 404

    with_rig(work)


def test_a_paused_function_is_not_called_and_goes_on_when_resumed() -> None:
    """Queued runs wait; nothing is skipped."""

    async def work(rig: Rig) -> None:
        await rig.sync()
        assert (await rig.do("pause")).json() == {"mode": "paused"}
        (run_id,) = await rig.send()
        assert (await rig.why(run_id))["gate"] == "paused" and not rig.out
        shown = (await rig.client.get("/api/functions")).json()["functions"][0]
        assert (shown["paused"], shown["waiting"]) == (True, 1) and shown["oldest_ms"] >= 0
        figures = (await rig.client.get("/v1/prom/dev")).text
        assert 'stepwell_queue_depth{function="a-f"} 1\n' in figures and 'stepwell_queue_oldest_seconds{function="a-f"} ' in figures
        await rig.do("resume")
        await rig.until(lambda: run_id in rig.out)

    with_rig(work)


def test_a_draining_function_lets_begun_runs_end() -> None:
    """A run that has begun goes on to its end; a new one waits until the function is resumed. With keys and without."""

    async def work(rig: Rig) -> None:
        for settings in ({}, {"concurrency": (Concurrency(limit=5, key="event.data.t"),)}):
            await rig.sync(**settings)
            (begun,) = await rig.send()
            call = await rig.until(lambda begun=begun: rig.out.get(begun))
            assert (await rig.do("drain")).json() == {"mode": "draining"}
            (new,) = await rig.send()
            call.set_result(Ops(ops=(Op(op="StepRun", id="s", name="s", data=b"1"),), request_version=2))
            await rig.until(lambda begun=begun, call=call: rig.out.get(begun, call) is not call)
            assert (await rig.why(new))["gate"] == "draining"
            rig.out[begun].set_result(Returned(data=b"1"))
            await rig.do("resume")
            (await rig.until(lambda new=new: rig.out.get(new))).set_result(Returned(data=b"1"))
            await rig.until(lambda: not rig.out)

    with_rig(work)


def test_a_raised_limit_opens_what_is_queued() -> None:
    """Without a deploy; the next sync says otherwise, unless the change is pinned."""

    async def work(rig: Rig) -> None:
        await rig.sync(**LIMITED)
        runs = await rig.send(5, t="acme")
        await rig.until(lambda: len(rig.out) == 1)
        assert (await rig.do("limits", {"concurrency": 3})).json()["override"]["concurrency"] == {"0": 3}
        await rig.until(lambda: len(rig.out) == 3)
        assert (await rig.why(runs[4]))["limit"] == 3
        await rig.sync(**LIMITED, retries=1)
        assert (await rig.client.get("/api/functions")).json()["functions"][0]["override"] is None
        await rig.do("limits", {"concurrency": {"0": 5}, "pin": True})
        await rig.sync(**LIMITED, retries=2)
        await rig.until(lambda: len(rig.out) == 5)
        await rig.do("limits", method="DELETE")
        (later,) = await rig.send(1, t="acme")
        assert (await rig.why(later))["limit"] == 1

    with_rig(work)


def test_a_throttle_set_by_hand_gates_runs_from_then_on() -> None:
    """A function without keys gets one; runs that were scheduled before have none."""

    async def work(rig: Rig) -> None:
        await rig.sync()
        await rig.do("limits", {"throttle": {"limit": 1, "period": "1h"}, "weight": 3})
        runs = await rig.send(2)
        await rig.until(lambda: runs[0] in rig.out)
        assert (await rig.why(runs[1]))["gate"] == "throttle"
        assert rig.node.registry.functions["a-f"].weight == 3

    with_rig(work)


def test_changes_that_make_no_sense_are_refused_by_name() -> None:
    """Nothing is changed then."""

    async def work(rig: Rig) -> None:
        await rig.sync()
        for body, said in (
            ({"concurency": 3}, "'concurency'"),
            ({"concurrency": {"1": 3}}, "place '1'"),
            ({"concurrency": "many"}, "'many'"),
            ({"weight": 0}, "weight is 0"),
            ({"throttle": {"limit": 3}}, "period"),
            ({"throttle": {"limit": 3, "period": "soon"}}, "'soon'"),
        ):
            answer = await rig.do("limits", body)
            assert answer.status_code == 400 and said in answer.json()["error"], answer.text
        assert (await rig.client.post("/api/functions/nobody/pause")).status_code == 404
        assert rig.node.registry.functions["a-f"].row.override is None

    with_rig(work)


def test_a_full_queue_tells_senders_to_come_back() -> None:
    """429 with `Retry-After`, and nothing of the request is stored; other events are taken."""

    async def work(rig: Rig) -> None:
        await rig.sync(concurrency=(Concurrency(limit=1),))
        await rig.send(3)
        await rig.until(lambda: len(rig.out) == 1)
        await rig.node.backlog.count()
        refused = await rig.client.post("/e/k", json=[{"name": "x", "data": {}}] * 2)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "5"
        assert refused.json()["ids"] == [] and "--max-queued-per-function" in refused.json()["error"]
        assert (await rig.client.post("/e/k", json={"name": "y", "data": {}})).status_code == 200
        assert len(await rig.send()) == 1  # one more than wait now is what may

    with_rig(work, queued_per_function_max=3)
